"""Every layer passes the checks that `testing.check_layer` makes for plugin authors."""

import keras
import pytest

from keras_efficient.layers import EarlyExit, GatedConv2D, GatedDense, GatedDepthwiseConv2D, LayerGate, MultiBitDense

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the last check exports, which needs the TensorFlow backend"
)

SPREAD = keras.initializers.RandomNormal(stddev=0.5, seed=1)


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (GatedConv2D, {"filters": 8, "kernel_size": 3, "batch_normalization": True, "gate_bias_initializer": SPREAD}),
        (
            GatedDepthwiseConv2D,
            {"kernel_size": 3, "depth_multiplier": 2, "batch_normalization": True, "gate_bias_initializer": SPREAD},
        ),
        (GatedDense, {"units": 7, "activation": "relu", "gate_bias_initializer": SPREAD, "input_shape": (12,)}),
        (LayerGate, {"layer": keras.layers.Conv2D(4, 3, padding="same"), "gate_bias_initializer": SPREAD}),
        (EarlyExit, {"num_classes": 3}),
        (MultiBitDense, {"units": 5, "bits": 3, "seed": 1, "input_shape": (20,)}),
    ],
)
def test_check_layer(cls, arguments):
    testing = pytest.importorskip("keras_efficient.testing")
    assert len(testing.check_layer(cls, **arguments)) == 10
