package io.github.kerasefficient.app;

import io.github.kerasefficient.Budget;
import io.github.kerasefficient.ModelInfo;
import java.util.ArrayList;
import java.util.List;

/** Remembers what it was asked; says how bright the picture is, and the exit that a deadline in microseconds allows. */
final class FakeRecognizer implements Recognizer {
  private static final ModelInfo INFO = ModelInfo.parse("{\"staged\": true,"
      + "\"normalization\": {\"mean\": 0.0, \"std\": 255.0},"
      + "\"trade_off\": {\"min\": 0.01, \"max\": 1.0, \"default\": 0.1},"
      + "\"exits\": [{\"macs\": 100.0}, {\"macs\": 200.0}, {\"macs\": 400.0}]}");
  private static final double[] MICROSECONDS = {10, 20, 40};

  final List<float[]> values = new ArrayList<>();
  final List<Budget> budgets = new ArrayList<>();
  RuntimeException failure;
  int closings;

  @Override
  public ModelInput input() {
    return new ModelInput(new int[] {1, 2, 2, 1}, INFO);
  }

  @Override
  public List<BudgetScale> scales() {
    return BudgetScale.of(INFO, true, MICROSECONDS);
  }

  @Override
  public Recognition recognize(float[] values, Budget budget) {
    this.values.add(values);
    budgets.add(budget);
    if (failure != null) {
      throw failure;
    }
    int exit = 3;
    while (budget.deadlineMicroseconds() != null && MICROSECONDS[exit - 1] > budget.deadlineMicroseconds()) {
      exit--;
    }
    return new Recognition(values[0] > 0.5 ? "light" : "dark", 0.75f, exit, 3, MICROSECONDS[exit - 1] / 1e3,
        0.25 * (1 << exit - 1));
  }

  @Override
  public void close() {
    closings++;
  }
}
