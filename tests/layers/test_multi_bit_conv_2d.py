import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient import cost
from keras_efficient.layers import MultiBitConv2D
from keras_efficient.ops import multi_bit_conv_2d
from keras_efficient.ops.context import calling_ops_with


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def inputs(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def test_by_hand():
    layer = MultiBitConv2D(1, (1, 2), bits=1, groups="pixelwise", activation="relu")
    layer.build((None, 1, 2, 2))
    layer.sketch(np.asarray([[[[1.0], [-3.0]], [[4.0], [4.0]]]]))  # two positions of two channels
    np.testing.assert_array_equal(array(layer.codes), [[0, 1], [0, 0]])
    np.testing.assert_array_equal(array(layer.scales), [[2], [4]])
    x = np.asarray([[[[1, 2], [3, 4]]]], "float32")
    np.testing.assert_allclose(array(layer(x)), [[[[2 - 4 + 12 + 16]]]])


@pytest.mark.parametrize("groups", ["channelwise", "pixelwise", "kernelwise"])
def test_from_conv(groups):
    conv = keras.layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", bias_initializer="uniform")
    x = inputs(2, 9, 9, 12)
    expected = array(conv(x))
    layer = MultiBitConv2D.from_conv(conv, 8, groups)
    np.testing.assert_allclose(array(layer(x)), expected, atol=0.1)
    assert layer.widths().shape == (6, {"channelwise": 1, "pixelwise": 9, "kernelwise": 12}[groups])
    assert layer.compute_output_shape(x.shape) == expected.shape == (2, 5, 5, 6)


@pytest.mark.parametrize("groups", ["channelwise", "pixelwise", "kernelwise"])
@pytest.mark.parametrize("more", [{"strides": 2}, {"dilation_rate": (1, 2), "activation_bits": 2}])
def test_the_op_gives_what_the_layer_gives(groups, more):
    layer = MultiBitConv2D(5, (3, 2), bits=3, groups=groups, padding="same", activation="relu", use_bias=False, **more)
    x = inputs(2, 7, 6, 3)
    layer(x, training=True)
    scales = array(layer.scales).copy()
    scales[::2, 1:] = 0
    scales[1] = 0
    layer.scales.assign(scales)

    def call(op, tensors, attributes):
        assert op is multi_bit_conv_2d
        return op.reference(*tensors, **vars(attributes))

    for limit in (None, np.asarray([1], "int32")):
        with calling_ops_with(call):
            by_op = array(layer(x, limit))
        np.testing.assert_allclose(by_op, array(layer(x, limit)), atol=1e-5)


def test_saves_packed_bits_and_loads_bit_equal(tmp_path):
    model = keras.Sequential([keras.Input((6, 6, 3)), MultiBitConv2D(4, 3, bits=2, groups="kernelwise")])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = inputs(3, 6, 6, 3)
    np.testing.assert_array_equal(array(loaded(x)), array(model(x)))
    assert loaded.layers[0].get_config() == model.layers[0].get_config()


def test_cost():
    layer = MultiBitConv2D(4, 3, bits=2, groups="pixelwise")
    report = cost.profile(keras.Sequential([keras.Input((6, 6, 16)), layer]))
    assert report.macs == 16 * 9 * 16 * 4
    assert report.bytes == 4 * 9 * 2 * (16 / 8 + 4) + 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 0}, "`filters`. Expected a positive integer. Received: 0"),
        ({"kernel_size": (3, 0)}, "`kernel_size`. Expected a positive integer or two of them. Received: (3, 0)"),
        ({"groups": "rowwise"}, "`groups`. Expected one of ('channelwise', 'pixelwise', 'kernelwise')"),
        ({"padding": "causal"}, "`padding`. Expected 'valid' or 'same'. Received: 'causal'"),
        ({"strides": 2, "dilation_rate": 2}, "`dilation_rate`. Expected 1 where strides are not 1."),
        ({"bits": 0}, "`bits`. Expected an integer from 1 to 8. Received: 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as error:
        MultiBitConv2D(**{"filters": 3, "kernel_size": 3, **arguments})
    assert message in str(error.value)


def test_bad_layers():
    with pytest.raises(ValueError, match="`conv`. Expected a built `keras.layers.Conv2D`"):
        MultiBitConv2D.from_conv(keras.layers.Conv2D(3, 3))
    grouped = keras.layers.Conv2D(4, 3, groups=2)
    grouped.build((None, 5, 5, 4))
    with pytest.raises(ValueError, match="Expected channels last and `groups=1`. Received: .*groups=2"):
        MultiBitConv2D.from_conv(grouped)
    with pytest.raises(ValueError, match=r"`inputs`. Expected \[batch, height, width, channels\]"):
        MultiBitConv2D(3, 3)(inputs(2, 3, 4))
