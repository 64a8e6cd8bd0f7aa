package io.github.kerasefficient;

import java.nio.ByteBuffer;
import java.util.Map;

/** What this library needs of a runtime: signatures of one file, run by name. */
interface SignatureRuntime extends AutoCloseable {
  /** A tensor of a signature: what it holds, and its shape as far as it is known. */
  final class Spec {
    final String type;
    final int[] shape;

    Spec(String type, int[] shape) {
      this.type = type;
      this.shape = shape;
    }
  }

  String[] signatures();

  Map<String, Spec> inputs(String signature);

  Map<String, Spec> outputs(String signature);

  /**
   * Runs a signature.
   *
   * @param inputs direct buffers in native order, by name.
   * @return outputs by name, in native order; valid until the same signature runs again.
   * @throws RuntimeException with the runtime's reason.
   */
  Map<String, ByteBuffer> run(String signature, Map<String, ByteBuffer> inputs);

  /** Multiply-accumulates that the package's kernels executed since the last call; -1 where no kernel runs. */
  long takeKernelMacs();

  @Override
  void close();
}
