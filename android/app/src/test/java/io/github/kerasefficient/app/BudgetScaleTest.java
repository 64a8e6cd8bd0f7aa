package io.github.kerasefficient.app;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;

import io.github.kerasefficient.Budget;
import io.github.kerasefficient.ModelInfo;
import java.util.List;
import org.junit.Test;

public final class BudgetScaleTest {
  private static final String EXITS = "\"exits\": [{\"macs\": 100.0}, {\"macs\": 300.0}, {\"macs\": 500.0}]";
  private static final double[] MEASURED = {10, 30, 110};

  private static ModelInfo info(String entries) {
    return ModelInfo.parse("{" + entries + "}");
  }

  private static String tradeOff(double min, double max, double initial) {
    return "\"trade_off\": {\"min\": " + min + ", \"max\": " + max + ", \"default\": " + initial + "}";
  }

  @Test
  public void tradeOffFallsByEqualFactorsToTheRight() {
    BudgetScale scale = BudgetScale.of(info(tradeOff(0.01, 1, 0.1)), true, new double[0]).get(0);
    assertEquals(BudgetScale.Kind.TRADE_OFF, scale.kind);
    assertEquals(50, scale.initialPosition);
    assertEquals(1, scale.value(0), 0);
    assertEquals(0.1, scale.value(50), 1e-7);
    assertEquals(0.01f, scale.value(100), 0);
    Budget budget = scale.budget(0);
    assertEquals(1f, budget.tradeOff(), 0);
    assertNull(budget.deadlineMicroseconds());
  }

  @Test
  public void tradeOffDownToNothingFallsByEqualSteps() {
    BudgetScale scale = BudgetScale.of(info(tradeOff(0, 1, 0.25)), true, new double[0]).get(0);
    assertEquals(75, scale.initialPosition);
    assertEquals(0.25, scale.value(75), 1e-7);
  }

  @Test
  public void deadlineReachesFromTheFirstExitToTheLast() {
    BudgetScale scale = BudgetScale.of(info(EXITS), true, MEASURED).get(0);
    assertEquals(BudgetScale.Kind.MICROSECONDS, scale.kind);
    assertEquals(100, scale.initialPosition);
    assertEquals(10, scale.value(0), 0);
    assertEquals(60, scale.value(50), 1e-9);
    assertEquals(110, scale.value(100), 0);
    assertEquals(110, scale.budget(100).deadlineMicroseconds(), 0);
  }

  @Test
  public void unmeasuredDeadlineIsInMultiplyAdds() {
    BudgetScale scale = BudgetScale.of(info(EXITS), true, new double[0]).get(0);
    assertEquals(BudgetScale.Kind.MACS, scale.kind);
    assertEquals(300, scale.budget(50).deadlineMacs(), 1e-9);
  }

  @Test
  public void everyPositionIsInside() {
    for (BudgetScale scale : BudgetScale.of(info(EXITS + "," + tradeOff(0.02, 0.7, 0.3)), true, MEASURED)) {
      double low = Math.min(scale.value(0), scale.value(BudgetScale.STEPS));
      double high = Math.max(scale.value(0), scale.value(BudgetScale.STEPS));
      for (int position = -1; position <= BudgetScale.STEPS + 1; position++) {
        double value = scale.value(position);
        assertTrue(scale.kind + " " + value, low <= value && value <= high);
        scale.budget(position);
      }
    }
  }

  @Test
  public void onlyWhatTheModelTakesIsOffered() {
    List<BudgetScale> both = BudgetScale.of(info(EXITS + "," + tradeOff(0.1, 1, 0.3)), true, MEASURED);
    assertEquals(2, both.size());
    assertEquals(1, BudgetScale.of(info(EXITS + "," + tradeOff(0.1, 1, 0.3)), false, MEASURED).size());
    assertTrue(BudgetScale.of(info(EXITS), false, MEASURED).isEmpty());
    assertTrue(BudgetScale.of(info("\"exits\": [{\"macs\": 5.0}]"), true, new double[0]).isEmpty());
    assertTrue(BudgetScale.of(info(tradeOff(0.1, 0.1, 0.1)), true, new double[0]).isEmpty());
    assertTrue(BudgetScale.of(info(""), true, new double[0]).isEmpty());
  }
}
