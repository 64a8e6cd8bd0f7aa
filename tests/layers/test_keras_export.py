"""Keras's own export to LiteRT gives a portable file: it runs in a stock interpreter."""

import keras
import numpy as np
import pytest

from keras_efficient.layers import EarlyExit, GatedConv2D, LayerGate, MultiBitDense

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="Keras exports to LiteRT on the TensorFlow backend"
)


def test_export_by_keras(tmp_path):
    interpreters = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    spread = keras.initializers.RandomNormal(stddev=1.0, seed=3)
    x = keras.Input((6, 6, 2))
    h, gate = GatedConv2D(8, 3, gate_bias_initializer=spread, batch_normalization=True, return_gate=True)(x)
    h = GatedConv2D(8, 3, padding="same", gate=None)(h, input_gate=gate)
    h = LayerGate(keras.layers.Conv2D(8, 1), gate_bias_initializer="zeros", gate_kernel_initializer=spread)(h)
    h = EarlyExit(3)(h)
    model = keras.Model(x, MultiBitDense(3)(keras.layers.Flatten()(h)))
    path = tmp_path / "model.tflite"
    model.export(str(path), format="litert", verbose=False)

    images = np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype("float32")
    interpreter = interpreters.Interpreter(str(path))
    runner = interpreter.get_signature_runner()
    name = next(iter(runner.get_input_details()))
    for image in images:
        (output,) = runner(**{name: image[None]}).values()
        np.testing.assert_allclose(output, np.asarray(model(image[None])), atol=1e-5)
