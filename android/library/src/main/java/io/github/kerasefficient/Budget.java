package io.github.kerasefficient;

/**
 * What one request may cost. Immutable; every {@code with} method gives a changed copy.
 *
 * <pre>{@code
 * Budget budget = Budget.none().withTradeOff(0.3f).withMaxExit(2);
 * }</pre>
 *
 * <p>What is left out is the model's own choice: its default trade-off, all exits. Several bounds hold together; the
 * lowest exit that any of them allows is the last one that may be taken.
 */
public final class Budget {
  private static final Budget NONE = new Budget(null, null, null, null);

  private final Float tradeOff;
  private final Integer maxExit;
  private final Double deadlineMacs;
  private final Double deadlineMicroseconds;

  private Budget(Float tradeOff, Integer maxExit, Double deadlineMacs, Double deadlineMicroseconds) {
    this.tradeOff = tradeOff;
    this.maxExit = maxExit;
    this.deadlineMacs = deadlineMacs;
    this.deadlineMicroseconds = deadlineMicroseconds;
  }

  /** No bound. */
  public static Budget none() {
    return NONE;
  }

  /**
   * How much accuracy to give for compute: the accuracy (0 to 1) that the cost of one full network is worth. 0 means as
   * accurate as possible. Only models whose policy takes a trade-off accept one ({@link ModelInfo#takesTradeOff()}).
   *
   * @throws IllegalArgumentException if it is negative or not a finite number.
   */
  public Budget withTradeOff(float value) {
    if (!(value >= 0) || Float.isInfinite(value)) {
      throw new IllegalArgumentException(
          "Invalid value for argument `tradeOff`. Expected a finite number of at least 0. Received: " + value);
    }
    return new Budget(value, maxExit, deadlineMacs, deadlineMicroseconds);
  }

  /**
   * The last exit that may be taken, 0 for the first.
   *
   * @throws IllegalArgumentException if it is negative.
   */
  public Budget withMaxExit(int exit) {
    if (exit < 0) {
      throw new IllegalArgumentException(
          "Invalid value for argument `maxExit`. Expected the index of an exit, 0 for the first. Received: " + exit);
    }
    return new Budget(tradeOff, exit, deadlineMacs, deadlineMicroseconds);
  }

  /**
   * Multiply-accumulates that the request may cost at most, all stages together.
   *
   * @throws IllegalArgumentException if it is not above 0.
   */
  public Budget withDeadlineMacs(double macs) {
    return new Budget(tradeOff, maxExit, positive("deadlineMacs", macs), deadlineMicroseconds);
  }

  /**
   * Microseconds that the request may take at most, by the costs that were measured for the exits: by {@link
   * DynamicModel#measure} on this device, else those in the file. It bounds which exits may be taken; nothing is
   * interrupted.
   *
   * @throws IllegalArgumentException if it is not above 0.
   */
  public Budget withDeadlineMicroseconds(double microseconds) {
    return new Budget(tradeOff, maxExit, deadlineMacs, positive("deadlineMicroseconds", microseconds));
  }

  /** The trade-off, null where the model's default holds. */
  public Float tradeOff() {
    return tradeOff;
  }

  /** The last exit allowed, null where there is no such bound. */
  public Integer maxExit() {
    return maxExit;
  }

  /** Multiply-accumulates, null where there is no such bound. */
  public Double deadlineMacs() {
    return deadlineMacs;
  }

  /** Microseconds, null where there is no such bound. */
  public Double deadlineMicroseconds() {
    return deadlineMicroseconds;
  }

  @Override
  public String toString() {
    return "Budget(tradeOff=" + tradeOff + ", maxExit=" + maxExit + ", deadlineMacs=" + deadlineMacs
        + ", deadlineMicroseconds=" + deadlineMicroseconds + ")";
  }

  private static double positive(String name, double value) {
    if (value > 0) {
      return value;
    }
    throw new IllegalArgumentException(
        "Invalid value for argument `" + name + "`. Expected a number above 0. Received: " + value);
  }
}
