package io.github.kerasefficient;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.TreeSet;

/** Runs one request of an opened model; {@link SingleFile} and {@link Staged} differ in who decides the exits. */
abstract class Engine {
  static final String OUTPUT = "output";
  static final String EXIT_INDEX = "exit_index";
  static final String MACS = "macs";
  static final String TRADE_OFF = "trade_off";
  static final String MAX_EXIT = "max_exit";

  final ModelInfo info;
  final SignatureRuntime runtime;

  Engine(ModelInfo info, SignatureRuntime runtime) {
    this.info = info;
    this.runtime = runtime;
  }

  /** Opens the runtime, with the delegate where the file needs it. */
  static Engine open(ByteBuffer content, ModelInfo info, DynamicModel.Options options) {
    boolean hasOps = !info.ops().isEmpty() && !"builtin".equals(info.form());
    if (hasOps && options.useDelegate) {
      checkVersions(info, KerasEfficientDelegate.opVersions());
    } else if (hasOps && "custom".equals(info.form())) {
      throw new IllegalArgumentException("Invalid value for argument `useDelegate`. Expected true for a file with "
          + "ops='custom', which only the delegate can run. Received: false");
    }
    return open(info, TensorFlowLiteRuntime.open(content, info, options.threads, hasOps && options.useDelegate));
  }

  /** Takes the runtime over: closes it if the file is not what its metadata says. */
  static Engine open(ModelInfo info, SignatureRuntime runtime) {
    try {
      return info.staged() ? new Staged(info, runtime) : new SingleFile(info, runtime);
    } catch (RuntimeException error) {
      runtime.close();
      throw error;
    }
  }

  /** Refuses a file with ops newer than the library's kernels, or without any, naming both versions. */
  static void checkVersions(ModelInfo info, Map<String, Integer> library) {
    for (Map.Entry<String, Integer> op : info.ops().entrySet()) {
      Integer known = library.get(op.getKey());
      if (known == null || known < op.getValue()) {
        throw new IllegalArgumentException("The native library does not match this model. Expected "
            + (known == null ? "no " + op.getKey() : op.getKey() + " of version " + known + " or older")
            + ", as this library has kernels. Received: version " + op.getValue()
            + (info.version().isEmpty() ? "" : ", written by keras-efficient " + info.version()));
      }
    }
  }

  abstract Prediction predict(Map<String, ByteBuffer> inputs, Budget budget);

  abstract double[] measure(ByteBuffer input, int repetitions);

  /** The inputs that a request brings. */
  abstract Map<String, SignatureRuntime.Spec> modelInputs();

  Map<String, int[]> inputShapes() {
    Map<String, int[]> shapes = new LinkedHashMap<>();
    for (Map.Entry<String, SignatureRuntime.Spec> input : modelInputs().entrySet()) {
      shapes.put(input.getKey(), input.getValue().shape.clone());
    }
    return shapes;
  }

  String onlyInput() {
    if (modelInputs().size() != 1) {
      throw new IllegalArgumentException("Invalid input. Expected values by name for " + modelInputs().keySet()
          + ". Received: one without a name");
    }
    return modelInputs().keySet().iterator().next();
  }

  void close() {
    runtime.close();
  }

  /** Checks a request's inputs and brings them into the form that the runtime takes. */
  Map<String, ByteBuffer> checkInputs(Map<String, ByteBuffer> given) {
    if (!given.keySet().equals(modelInputs().keySet())) {
      throw new IllegalArgumentException("Invalid inputs. Expected " + new TreeSet<>(modelInputs().keySet())
          + ". Received: " + new TreeSet<>(given.keySet()));
    }
    Map<String, ByteBuffer> checked = new HashMap<>();
    for (Map.Entry<String, SignatureRuntime.Spec> input : modelInputs().entrySet()) {
      long elements = 1;
      for (int size : input.getValue().shape) {
        elements *= size;
      }
      ByteBuffer values = given.get(input.getKey());
      if (values.remaining() != 4 * elements) {
        throw new IllegalArgumentException("Invalid input `" + input.getKey() + "`. Expected " + elements
            + " float32 values, of shape " + Arrays.toString(input.getValue().shape) + ". Received: "
            + values.remaining() + " bytes");
      }
      checked.put(input.getKey(), direct(values));
    }
    return checked;
  }

  /** Runs a signature; what goes wrong in the runtime is one kind of exception, with the runtime's words. */
  Map<String, ByteBuffer> run(String signature, Map<String, ByteBuffer> inputs) {
    try {
      return runtime.run(signature, inputs);
    } catch (RuntimeException error) {
      throw new IllegalStateException(
          "The runtime failed in signature `" + signature + "`. It says: " + error.getMessage(), error);
    }
  }

  String label(float[] scores) {
    int index = scores.length == 0 ? 0 : Prediction.highest(scores);
    return index < info.labels().size() ? info.labels().get(index) : null;
  }

  static void expectFloats(String signature, Map<String, SignatureRuntime.Spec> tensors) {
    for (Map.Entry<String, SignatureRuntime.Spec> tensor : tensors.entrySet()) {
      expectType(signature, tensor.getKey(), tensor.getValue(), "FLOAT32");
    }
  }

  static void expectType(String signature, String name, SignatureRuntime.Spec spec, String type) {
    if (!spec.type.equals(type)) {
      throw new IllegalArgumentException("Invalid model. Expected " + type + " for tensor `" + name + "` of signature `"
          + signature + "`. Received: " + spec.type);
    }
  }

  /** The same values in a direct buffer of native order, which is the buffer itself where it is one. */
  static ByteBuffer direct(ByteBuffer values) {
    if (values.isDirect() && values.order() == ByteOrder.nativeOrder()) {
      return values.slice().order(ByteOrder.nativeOrder());
    }
    ByteBuffer copy = ByteBuffer.allocateDirect(values.remaining()).order(ByteOrder.nativeOrder());
    copy.asFloatBuffer().put(values.slice().order(values.order()).asFloatBuffer());
    return copy;
  }

  static ByteBuffer scalar(float value) {
    ByteBuffer buffer = ByteBuffer.allocateDirect(4).order(ByteOrder.nativeOrder());
    buffer.putFloat(0, value);
    return buffer;
  }

  static ByteBuffer scalar(int value) {
    ByteBuffer buffer = ByteBuffer.allocateDirect(4).order(ByteOrder.nativeOrder());
    buffer.putInt(0, value);
    return buffer;
  }

  static float[] floats(ByteBuffer values) {
    float[] copy = new float[values.remaining() / 4];
    values.slice().order(ByteOrder.nativeOrder()).asFloatBuffer().get(copy);
    return copy;
  }
}
