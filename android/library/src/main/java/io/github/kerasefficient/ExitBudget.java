package io.github.kerasefficient;

/** A {@link Budget} put into a model's own terms. */
final class ExitBudget {
  final int maxExit;
  /** NaN for a model whose policy takes none. */
  final float tradeOff;

  private ExitBudget(int maxExit, float tradeOff) {
    this.maxExit = maxExit;
    this.tradeOff = tradeOff;
  }

  /**
   * The last exit and the trade-off.
   *
   * @param canCap whether the file can be told the last exit.
   * @param microseconds what each exit costs, empty where nobody measured it.
   * @throws IllegalArgumentException in one sentence, if the model cannot keep the budget.
   */
  static ExitBudget of(Budget budget, ModelInfo info, boolean canCap, double[] microseconds) {
    boolean caps = budget.maxExit() != null || budget.deadlineMacs() != null || budget.deadlineMicroseconds() != null;
    if (caps && !info.hasExits()) {
      throw refused("bound on exits", budget, "This model has no exits.");
    }
    if (caps && !canCap) {
      throw refused("bound on exits", budget,
          "This file decides its exits alone: export it with budget_inputs=True or staged=True.");
    }
    if (budget.tradeOff() != null && !info.takesTradeOff()) {
      throw refused("trade-off", budget, "This model's policy takes none.");
    }
    int last = info.numExits() - 1;
    if (budget.maxExit() != null) {
      if (budget.maxExit() > last) {
        throw new IllegalArgumentException("Invalid value for argument `maxExit`. Expected an exit of this model, 0 to "
            + last + ". Received: " + budget.maxExit());
      }
      last = budget.maxExit();
    }
    if (budget.deadlineMacs() != null) {
      last = Math.min(last, lastWithin("deadlineMacs", budget.deadlineMacs(), info.exitMacs()));
    }
    if (budget.deadlineMicroseconds() != null) {
      last = Math.min(last, lastWithin("deadlineMicroseconds", budget.deadlineMicroseconds(), microseconds));
    }
    return new ExitBudget(last, budget.tradeOff() != null ? budget.tradeOff() : info.defaultTradeOff());
  }

  /** The last exit whose cumulative cost fits. */
  private static int lastWithin(String name, double deadline, double[] costs) {
    if (costs.length == 0) {
      throw new IllegalArgumentException("Invalid value for argument `" + name
          + "`. Expected none, since this model does not know what its exits cost in that unit. Received: " + deadline);
    }
    if (deadline < costs[0]) {
      throw new IllegalArgumentException("Invalid value for argument `" + name + "`. Expected at least " + costs[0]
          + ", the cost of the first exit. Received: " + deadline);
    }
    int last = 0;
    while (last + 1 < costs.length && costs[last + 1] <= deadline) {
      last++;
    }
    return last;
  }

  private static IllegalArgumentException refused(String what, Budget budget, String why) {
    return new IllegalArgumentException(
        "Invalid value for argument `budget`. Expected no " + what + ". " + why + " Received: " + budget);
  }
}
