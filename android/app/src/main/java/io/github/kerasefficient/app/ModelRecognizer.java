package io.github.kerasefficient.app;

import io.github.kerasefficient.Budget;
import io.github.kerasefficient.DynamicModel;
import io.github.kerasefficient.Prediction;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;

/** A {@link DynamicModel} that was warmed up and measured. */
final class ModelRecognizer implements Recognizer {
  private static final int REPETITIONS = 20;

  private final DynamicModel model;
  private final ModelInput input;
  private final List<BudgetScale> scales;

  private ModelRecognizer(DynamicModel model) {
    this.model = model;
    int[] shape = model.inputShapes().values().iterator().next();
    input = new ModelInput(shape, model.info());
    float[] zeros = new float[input.height * input.width * input.channels];
    model.predict(zeros, Budget.none());
    double[] costs = model.info().staged() ? model.measure(zeros, REPETITIONS) : model.info().exitMicroseconds();
    scales = BudgetScale.of(model.info(), canCap(zeros), costs);
  }

  /**
   * Opens a model.
   *
   * @param content the whole file; closed afterwards.
   * @throws IOException if it cannot be read.
   * @throws IllegalArgumentException if it is no model that can run here, or takes no pictures.
   * @throws IllegalStateException if the native library is needed and cannot be loaded.
   */
  static ModelRecognizer open(InputStream content) throws IOException {
    DynamicModel model = DynamicModel.open(direct(content));
    try {
      return new ModelRecognizer(model);
    } catch (RuntimeException error) {
      model.close();
      throw error;
    }
  }

  @Override
  public ModelInput input() {
    return input;
  }

  @Override
  public List<BudgetScale> scales() {
    return scales;
  }

  @Override
  public Recognition recognize(float[] values, Budget budget) {
    Prediction prediction = model.predict(values, budget);
    int best = prediction.labelIndex();
    String label = prediction.label();
    double[] macs = model.info().exitMacs();
    return new Recognition(
        label == null ? String.valueOf(best) : label,
        prediction.softmax()[best],
        Math.max(0, prediction.exitIndex()) + 1,
        model.info().numExits(),
        prediction.latencyNanos() / 1e6,
        macs.length == 0 ? Double.NaN : prediction.executedMacs() / macs[macs.length - 1]);
  }

  @Override
  public void close() {
    model.close();
  }

  /** Whether the model can be told its last exit; a file that decides its exits alone cannot. */
  private boolean canCap(float[] values) {
    try {
      model.predict(values, Budget.none().withMaxExit(model.info().numExits() - 1));
      return true;
    } catch (IllegalArgumentException refused) {
      return false;
    }
  }

  private static ByteBuffer direct(InputStream content) throws IOException {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (InputStream closing = content) {
      byte[] part = new byte[1 << 16];
      for (int count = closing.read(part); count >= 0; count = closing.read(part)) {
        bytes.write(part, 0, count);
      }
    }
    ByteBuffer buffer = ByteBuffer.allocateDirect(bytes.size()).order(ByteOrder.nativeOrder());
    buffer.put(bytes.toByteArray());
    buffer.flip();
    return buffer;
  }
}
