package io.github.kerasefficient.app;

import io.github.kerasefficient.Budget;
import io.github.kerasefficient.ModelInfo;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/** What the positions of the slider mean: the further to the right, the more a request may cost. */
final class BudgetScale {
  /** What is bounded, and in which unit. */
  enum Kind {
    /** Accuracy given for the cost of one full network. */
    TRADE_OFF,
    /** Microseconds at most. */
    MICROSECONDS,
    /** Multiply-adds at most. */
    MACS
  }

  /** The rightmost position; the leftmost is 0. */
  static final int STEPS = 100;

  final Kind kind;
  final int initialPosition;
  private final double leftmost;
  private final double rightmost;
  private final boolean geometric;

  private BudgetScale(Kind kind, double leftmost, double rightmost, double initial) {
    this.kind = kind;
    this.leftmost = leftmost;
    this.rightmost = rightmost;
    geometric = kind == Kind.TRADE_OFF && Math.min(leftmost, rightmost) > 0;
    initialPosition = position(initial);
  }

  /**
   * The scales that a model offers: its trade-off, and a deadline where it has several exits of known cost. A deadline
   * reaches from the cost of the first exit to that of the last, so that something fits in every position.
   *
   * @param canCap whether requests may bound the exits.
   * @param exitMicroseconds up to each exit; where they are missing, the deadline is one in multiply-adds.
   */
  static List<BudgetScale> of(ModelInfo info, boolean canCap, double[] exitMicroseconds) {
    List<BudgetScale> scales = new ArrayList<>();
    if (info.takesTradeOff() && info.minTradeOff() < info.maxTradeOff()) {
      scales.add(
          new BudgetScale(Kind.TRADE_OFF, info.maxTradeOff(), info.minTradeOff(), info.defaultTradeOff()));
    }
    boolean measured = exitMicroseconds.length > 0;
    double[] costs = measured ? exitMicroseconds : info.exitMacs();
    if (canCap && costs.length > 1 && costs[0] > 0) {
      double whole = costs[costs.length - 1];
      scales.add(new BudgetScale(measured ? Kind.MICROSECONDS : Kind.MACS, costs[0], whole, whole));
    }
    return Collections.unmodifiableList(scales);
  }

  /** The bound at a position, in the unit of the kind; trade-offs rise by equal factors, deadlines by equal steps. */
  double value(int position) {
    if (position <= 0 || position >= STEPS) {
      return position <= 0 ? leftmost : rightmost;
    }
    double share = position / (double) STEPS;
    return geometric
        ? leftmost * Math.pow(rightmost / leftmost, share)
        : leftmost + (rightmost - leftmost) * share;
  }

  /** The position whose bound comes closest to a value between both ends. */
  private int position(double value) {
    double share = leftmost == rightmost ? 1
        : geometric ? Math.log(value / leftmost) / Math.log(rightmost / leftmost)
        : (value - leftmost) / (rightmost - leftmost);
    return (int) Math.round(STEPS * share);
  }

  /** The bound at a position, as a request takes it. */
  Budget budget(int position) {
    double value = value(position);
    switch (kind) {
      case TRADE_OFF:
        return Budget.none().withTradeOff((float) value);
      case MICROSECONDS:
        return Budget.none().withDeadlineMicroseconds(value);
      default:
        return Budget.none().withDeadlineMacs(value);
    }
  }
}
