package io.github.kerasefficient;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import org.tensorflow.lite.Interpreter;
import org.tensorflow.lite.Tensor;

/** TensorFlow Lite's interpreter and, for files with ops of the package, its delegate; closed in the right order. */
final class TensorFlowLiteRuntime implements SignatureRuntime {
  private final Interpreter interpreter;
  private final KerasEfficientDelegate delegate;
  private final Map<String, Map<String, Tensor>> outputTensors = new HashMap<>();

  private TensorFlowLiteRuntime(Interpreter interpreter, KerasEfficientDelegate delegate) {
    this.interpreter = interpreter;
    this.delegate = delegate;
  }

  /** Makes the interpreter. What the runtime says of a file that it refuses becomes part of the one sentence. */
  static TensorFlowLiteRuntime open(ByteBuffer content, ModelInfo info, int threads, boolean useDelegate) {
    KerasEfficientDelegate delegate = null;
    Interpreter interpreter = null;
    try {
      Interpreter.Options options = new Interpreter.Options().setNumThreads(threads);
      if (useDelegate) {
        delegate = new KerasEfficientDelegate(new KerasEfficientDelegate.Options().setStats(true));
        options.addDelegate(delegate);
      }
      interpreter = new Interpreter(content, options);
      interpreter.allocateTensors();
      return new TensorFlowLiteRuntime(interpreter, delegate);
    } catch (RuntimeException | LinkageError error) {
      if (interpreter != null) {
        interpreter.close();
      }
      if (delegate != null) {
        delegate.close();
      }
      if (error instanceof LinkageError) {
        throw new IllegalStateException("TensorFlow Lite could not be loaded: " + error.getMessage(), error);
      }
      if (useDelegate && delegate == null) {
        throw error; // the native library's own sentence
      }
      String hint = "composite".equals(info.form())
          ? " A file with ops='composite' needs LiteRT, or TensorFlow Lite 2.18.1 or newer; ops='custom' runs on older ones."
          : "";
      throw new IllegalArgumentException(
          "The runtime cannot run this file." + hint + " It says: " + error.getMessage(), error);
    }
  }

  @Override
  public String[] signatures() {
    return interpreter.getSignatureKeys();
  }

  @Override
  public Map<String, Spec> inputs(String signature) {
    Map<String, Spec> specs = new LinkedHashMap<>();
    for (String name : interpreter.getSignatureInputs(signature)) {
      specs.put(name, spec(interpreter.getInputTensorFromSignature(name, signature)));
    }
    return specs;
  }

  @Override
  public Map<String, Spec> outputs(String signature) {
    Map<String, Spec> specs = new LinkedHashMap<>();
    for (Map.Entry<String, Tensor> output : outputTensors(signature).entrySet()) {
      specs.put(output.getKey(), spec(output.getValue()));
    }
    return specs;
  }

  @Override
  public Map<String, ByteBuffer> run(String signature, Map<String, ByteBuffer> inputs) {
    interpreter.runSignature(new HashMap<String, Object>(inputs), new HashMap<String, Object>(), signature);
    Map<String, ByteBuffer> outputs = new HashMap<>();
    for (Map.Entry<String, Tensor> output : outputTensors(signature).entrySet()) {
      outputs.put(output.getKey(), output.getValue().asReadOnlyBuffer().order(ByteOrder.nativeOrder()));
    }
    return outputs;
  }

  /**
   * The tensors of a signature's outputs, asked for once: the runtime allocates a handle whenever it is asked for a
   * tensor of a signature, and never frees it. What they hold, and of what size, is read anew after every run.
   */
  private Map<String, Tensor> outputTensors(String signature) {
    Map<String, Tensor> tensors = outputTensors.get(signature);
    if (tensors == null) {
      tensors = new LinkedHashMap<>();
      for (String name : interpreter.getSignatureOutputs(signature)) {
        tensors.put(name, interpreter.getOutputTensorFromSignature(name, signature));
      }
      outputTensors.put(signature, tensors);
    }
    return tensors;
  }

  @Override
  public long takeKernelMacs() {
    if (delegate == null || delegate.claimedOps() == 0) {
      return -1;
    }
    long macs = delegate.executedMacs();
    delegate.resetStats();
    return macs;
  }

  @Override
  public void close() {
    interpreter.close();
    if (delegate != null) {
      delegate.close();
    }
  }

  private static Spec spec(Tensor tensor) {
    return new Spec(tensor.dataType().name(), tensor.shape());
  }
}
