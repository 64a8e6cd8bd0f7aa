package io.github.kerasefficient;

import java.io.File;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.util.Collections;
import java.util.Map;

/**
 * A model that computes as much as each input needs, and no more than a {@link Budget} allows. Runs files whose exits
 * are decided inside and staged ones, whose exits are decided here.
 *
 * <pre>{@code
 * try (DynamicModel model = DynamicModel.open(file)) {
 *   Prediction prediction = model.predict(input, Budget.none().withMaxExit(1));
 *   prediction.label(); prediction.exitIndex(); prediction.latencyNanos();
 * }
 * }</pre>
 *
 * <p>Any thread may call any method; one request runs at a time, and {@code close} waits for it. Open one model per
 * thread to run in parallel.
 */
public final class DynamicModel implements AutoCloseable {
  /** How a model is opened. */
  public static final class Options {
    int threads = 1;
    boolean useDelegate = true;
    String metadata;

    /**
     * Threads of operators and kernels. 1 by default.
     *
     * @throws IllegalArgumentException if there is none.
     */
    public Options setThreads(int threads) {
      if (threads < 1) {
        throw new IllegalArgumentException(
            "Invalid value for argument `threads`. Expected at least 1. Received: " + threads);
      }
      this.threads = threads;
      return this;
    }

    /** Whether the package's kernels run its ops; true by default. A model without such ops never needs them. */
    public Options setUseDelegate(boolean useDelegate) {
      this.useDelegate = useDelegate;
      return this;
    }

    /** The model's metadata (the content of its {@code model.json}) for a file that has none inside. */
    public Options setMetadata(String json) {
      this.metadata = json;
      return this;
    }
  }

  private final ModelInfo info;
  private final Engine engine;
  private boolean closed;

  private DynamicModel(ModelInfo info, Engine engine) {
    this.info = info;
    this.engine = engine;
  }

  /** {@link #open(File, Options)} with default options. */
  public static DynamicModel open(File file) throws IOException {
    return open(file, new Options());
  }

  /** {@link #open(ByteBuffer, Options)} with default options. */
  public static DynamicModel open(ByteBuffer file) {
    return open(file, new Options());
  }

  /**
   * Opens a file. What it says of itself is read from its metadata buffer, else from {@code model.json} beside it.
   *
   * @throws IOException if the file cannot be read.
   * @throws IllegalArgumentException if it is no model that can run here; one sentence says why, such as ops newer than
   *     the native library, with both versions.
   * @throws IllegalStateException if the native library is needed and cannot be loaded.
   */
  public static DynamicModel open(File file, Options options) throws IOException {
    ByteBuffer content;
    try (RandomAccessFile opened = new RandomAccessFile(file, "r");
        FileChannel channel = opened.getChannel()) {
      content = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size());
    }
    ModelInfo info = Metadata.of(content, options.metadata, file);
    return new DynamicModel(info, Engine.open(content, info, options));
  }

  /**
   * Opens a model in memory, such as an asset that was mapped. The content must not change as long as the model is
   * open; a buffer that is not direct is copied.
   *
   * @throws IllegalArgumentException see {@link #open(File, Options)}.
   * @throws IllegalStateException see {@link #open(File, Options)}.
   */
  public static DynamicModel open(ByteBuffer file, Options options) {
    ByteBuffer content = file.duplicate();
    if (!content.isDirect()) {
      content = ByteBuffer.allocateDirect(file.remaining());
      content.put(file.duplicate());
      content.flip();
    } else {
      content = content.slice();
    }
    ModelInfo info = Metadata.of(content, options.metadata, null);
    return new DynamicModel(info, Engine.open(content.order(ByteOrder.nativeOrder()), info, options));
  }

  /** What the file says of itself. */
  public ModelInfo info() {
    return info;
  }

  /** Shapes by input name, of what a request must bring; the first dimension is the batch of 1. */
  public Map<String, int[]> inputShapes() {
    return engine.inputShapes();
  }

  /** {@link #predict(float[], Budget)} without a bound. */
  public Prediction predict(float[] input) {
    return predict(input, Budget.none());
  }

  /**
   * Runs one input.
   *
   * @param input the values of the only input, in the order of its shape.
   * @throws IllegalArgumentException if the input has another size, or the model cannot keep the budget.
   * @throws IllegalStateException after {@link #close()}, or if the runtime fails.
   */
  public Prediction predict(float[] input, Budget budget) {
    return predict(bytes(input), budget);
  }

  /**
   * Runs one input.
   *
   * @param input float32 values of the only input, in the order of its shape, in the buffer's own byte order; what lies
   *     between position and limit counts. A direct buffer of native order is not copied.
   * @throws IllegalArgumentException see {@link #predict(float[], Budget)}.
   * @throws IllegalStateException see {@link #predict(float[], Budget)}.
   */
  public Prediction predict(ByteBuffer input, Budget budget) {
    return predict(Collections.singletonMap(engine.onlyInput(), input), budget);
  }

  /** Runs one input of a model with several: float32 values by name; throws what the other methods throw. */
  public synchronized Prediction predict(Map<String, ByteBuffer> inputs, Budget budget) {
    checkOpen();
    return engine.predict(inputs, budget);
  }

  /**
   * Measures what each exit costs on this device and takes deadlines in microseconds by that from now on. Every stage
   * and its policy run {@code repetitions} times, after a few that do not count; the medians do.
   *
   * @return microseconds up to each exit, its policy included.
   * @throws IllegalArgumentException if the model is not staged, or there is no repetition.
   * @throws IllegalStateException after {@link #close()}, or if the runtime fails.
   */
  public synchronized double[] measure(float[] input, int repetitions) {
    checkOpen();
    return engine.measure(bytes(input), repetitions);
  }

  /** Frees the interpreter and the delegate. Closing twice is fine. */
  @Override
  public synchronized void close() {
    if (!closed) {
      closed = true;
      engine.close();
    }
  }

  private static ByteBuffer bytes(float[] values) {
    ByteBuffer bytes = ByteBuffer.allocateDirect(4 * values.length).order(ByteOrder.nativeOrder());
    bytes.asFloatBuffer().put(values);
    return bytes;
  }

  private void checkOpen() {
    if (closed) {
      throw new IllegalStateException("The model is closed.");
    }
  }
}
