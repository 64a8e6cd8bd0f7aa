package io.github.kerasefficient;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertTrue;
import static org.junit.Assert.fail;

import org.junit.Test;

public class BudgetTest {
  private static final String EXITS = "\"exits\": [{\"macs\": 100, \"microseconds\": 10}, {\"macs\": 250, "
      + "\"microseconds\": 40}, {\"macs\": 400, \"microseconds\": 50}]";
  private static final ModelInfo PLAIN = ModelInfo.parse("{}");
  private static final ModelInfo EXITING = ModelInfo.parse("{" + EXITS + "}");
  private static final ModelInfo TRADING =
      ModelInfo.parse("{" + EXITS + ", \"trade_off\": {\"min\": 0, \"max\": 0.5, \"default\": 0.25}}");

  private static ExitBudget resolve(Budget budget, ModelInfo info) {
    return ExitBudget.of(budget, info, true, info.exitMicroseconds());
  }

  private static void assertRefused(Budget budget, ModelInfo info, boolean canCap, String... words) {
    try {
      ExitBudget.of(budget, info, canCap, info.exitMicroseconds());
    } catch (IllegalArgumentException error) {
      for (String word : words) {
        assertTrue(error.getMessage(), error.getMessage().contains(word));
      }
      return;
    }
    fail("accepted: " + budget);
  }

  @Test
  public void withoutBoundsTheModelChooses() {
    assertEquals(2, resolve(Budget.none(), EXITING).maxExit);
    assertEquals(0, resolve(Budget.none(), PLAIN).maxExit);
    assertTrue(Float.isNaN(resolve(Budget.none(), EXITING).tradeOff));
    assertEquals(0.25f, resolve(Budget.none(), TRADING).tradeOff, 0);
  }

  @Test
  public void deadlinesBecomeTheLastExitThatFits() {
    double[] deadlines = {100, 249.9, 250, 399, 400, 1e12};
    int[] exits = {0, 0, 1, 1, 2, 2};
    for (int i = 0; i < deadlines.length; i++) {
      assertEquals(exits[i], resolve(Budget.none().withDeadlineMacs(deadlines[i]), EXITING).maxExit);
    }
    assertEquals(1, resolve(Budget.none().withDeadlineMicroseconds(45), EXITING).maxExit);
  }

  @Test
  public void theTightestBoundHolds() {
    Budget budget = Budget.none().withMaxExit(2).withDeadlineMacs(300).withDeadlineMicroseconds(60);
    assertEquals(1, resolve(budget, EXITING).maxExit);
    assertEquals(0, resolve(budget.withMaxExit(0), EXITING).maxExit);
  }

  @Test
  public void aBudgetIsACopy() {
    Budget first = Budget.none().withTradeOff(0.1f);
    Budget second = first.withMaxExit(1);
    assertNull(first.maxExit());
    assertEquals(0.1f, second.tradeOff(), 0);
    assertNull(Budget.none().tradeOff());
  }

  @Test
  public void aTradeOffIsTakenAsItIs() {
    assertEquals(0.1f, resolve(Budget.none().withTradeOff(0.1f), TRADING).tradeOff, 0);
  }

  @Test
  public void whatAModelCannotKeepIsRefused() {
    assertRefused(Budget.none().withTradeOff(0.1f), EXITING, true, "no trade-off", "policy takes none", "0.1");
    assertRefused(Budget.none().withMaxExit(0), PLAIN, true, "This model has no exits");
    assertRefused(Budget.none().withDeadlineMacs(9), PLAIN, true, "This model has no exits");
    assertRefused(Budget.none().withMaxExit(0), EXITING, false, "budget_inputs=True");
    assertRefused(Budget.none().withMaxExit(3), EXITING, true, "0 to 2", "Received: 3");
    assertRefused(Budget.none().withDeadlineMacs(99), EXITING, true, "at least 100", "Received: 99");
    assertRefused(Budget.none().withDeadlineMicroseconds(9.5), EXITING, true, "at least 10", "Received: 9.5");
    ModelInfo unmeasured = ModelInfo.parse("{\"exits\": [{\"macs\": 100}, {\"macs\": 200}]}");
    assertRefused(Budget.none().withDeadlineMicroseconds(9.5), unmeasured, true, "does not know what its exits cost");
  }

  @Test
  public void nonsenseIsRefusedAtOnce() {
    Runnable[] calls = {
      () -> Budget.none().withTradeOff(Float.NaN),
      () -> Budget.none().withTradeOff(-0.1f),
      () -> Budget.none().withMaxExit(-1),
      () -> Budget.none().withDeadlineMacs(0),
      () -> Budget.none().withDeadlineMicroseconds(Double.NaN),
    };
    for (Runnable call : calls) {
      try {
        call.run();
        fail();
      } catch (IllegalArgumentException error) {
        assertTrue(error.getMessage(), error.getMessage().startsWith("Invalid value for argument `"));
      }
    }
  }
}
