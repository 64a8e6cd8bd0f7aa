"""Times binary convolutions in Larq Compute Engine, which needs an environment of its own.

`PYTHON -m benchmarks.larq_peer SIZExCHANNELS...`, where PYTHON (3.11 was tried) has `larq-compute-engine==0.16.0 larq
tensorflow-cpu==2.13.1 numpy<2`; `benchmarks.multi_bit --larq PYTHON` runs it. Prints one JSON object: seconds of one
call by size, one for each of 25 blocks; one thread, CPU time. The network is a 3x3 convolution of one bit on both
sides, "same" with padding by ones (what Larq's kernels want), and a batch normalisation that its converter fuses;
float32 in and out, whose copies belong to a call of Larq's interpreter.
"""

import importlib
import json
import sys
import time
from typing import Any

BLOCKS, BLOCK_SECONDS = 25, 0.02


def network(size: int, channels: int) -> tuple[Any, Any]:
    """Larq's interpreter with one binary convolution, and an input."""
    larq, engine, np, tf = (
        importlib.import_module(name) for name in ("larq", "larq_compute_engine", "numpy", "tensorflow")
    )
    interpreter = importlib.import_module("larq_compute_engine.tflite.python.interpreter").Interpreter
    tf.keras.utils.set_random_seed(3)
    x = inputs = tf.keras.Input((size, size, channels), batch_size=1)
    x = larq.layers.QuantConv2D(
        channels,
        3,
        padding="same",
        pad_values=1.0,
        use_bias=False,
        input_quantizer="ste_sign",
        kernel_quantizer="ste_sign",
        kernel_constraint="weight_clip",
    )(x)
    x = tf.keras.layers.BatchNormalization()(x)
    runtime = interpreter(engine.convert_keras_model(tf.keras.Model(inputs, x)), num_threads=1)
    sample = np.random.default_rng(3).standard_normal((1, size, size, channels)).astype("float32")
    assert np.isfinite(runtime.predict(sample)).all()
    return runtime, sample


def main() -> None:
    """Measures and prints."""
    found = {}
    for name in sys.argv[1:]:
        size, channels = (int(number) for number in name.split("x"))
        runtime, sample = network(size, channels)
        predict = runtime.interpreter.predict  # there is no call without the copies of input and output
        start = time.thread_time()
        for _ in range(3):
            predict([sample])
        calls = max(3, int(BLOCK_SECONDS / ((time.thread_time() - start) / 3)))
        times = []
        for _ in range(BLOCKS):
            start = time.thread_time()
            for _ in range(calls):
                predict([sample])
            times.append((time.thread_time() - start) / calls)
        found[name] = times
    print(json.dumps(found))


if __name__ == "__main__":
    main()
