package io.github.kerasefficient.app;

import io.github.kerasefficient.Budget;
import java.util.List;

/** A model as the screen needs it; {@link ModelRecognizer} is the real one. */
interface Recognizer extends AutoCloseable {
  /** How pictures become its input. */
  ModelInput input();

  /** What a request may be bounded by; empty where the model takes no bound. */
  List<BudgetScale> scales();

  /**
   * Recognises one picture.
   *
   * @param values see {@link ModelInput#values}.
   * @throws IllegalArgumentException if the model cannot keep the budget.
   * @throws IllegalStateException if the runtime fails.
   */
  Recognition recognize(float[] values, Budget budget);

  @Override
  void close();
}
