import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_efficient import ops
from keras_efficient.ops.gated_depthwise_conv_2d import GatedDepthwiseConv2DAttributes

EXAMPLES = 5 if keras.backend.backend() == "jax" else 30  # JAX compiles every new shape


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 10**6))
def test_is_a_gated_convolution_of_every_channel_by_itself(seed):
    (x, g_out, kernel, bias), attributes = ops.gated_depthwise_conv_2d.example(np.random.default_rng(seed))
    channels, multiplier = kernel.shape[2:]
    whole = np.zeros((*kernel.shape[:2], channels, channels * multiplier), "float32")
    for c in range(channels):
        whole[:, :, c, c * multiplier : (c + 1) * multiplier] = kernel[:, :, c]
    expected = ops.gated_conv_2d(x, np.ones(x.shape[::3], "float32"), g_out, whole, bias, **attributes)
    y = ops.gated_depthwise_conv_2d(x, g_out, kernel, bias, **attributes)
    np.testing.assert_allclose(array(y), array(expected), atol=1e-5)


def test_worked_by_hand():
    # Two pixels, three channels; the second is shut, the third scaled.
    x = np.array([[[[2.0, 100.0, 1.0], [-1.0, 100.0, 4.0]]]], "float32")
    kernel = np.array([3.0, 5.0, -2.0], "float32").reshape(1, 1, 3, 1)
    g_out, bias = np.array([[1.0, 0.0, 0.5]], "float32"), np.array([1.0, 1.0, 9.0], "float32")
    y = ops.gated_depthwise_conv_2d(x, g_out, kernel, bias, activation="relu6")
    np.testing.assert_array_equal(array(y), [[[[6.0, 0.0, 3.0], [0.0, 0.0, 0.5]]]])


def test_cost_counts_open_channels():
    # 4 x 4 positions x 3 x 3 taps = 144 for each of 3 x 2 channels.
    shapes = [(2, 8, 8, 3), (2, 6), (3, 3, 3, 2), (6,)]
    attributes = GatedDepthwiseConv2DAttributes(padding="same", stride_h=2, stride_w=2)
    assert ops.gated_depthwise_conv_2d.cost(shapes, attributes).macs == 144 * 6
    assert ops.gated_depthwise_conv_2d.cost(shapes, attributes).weight_bytes == 4 * (9 * 6 + 6)
    executed = ops.gated_depthwise_conv_2d.cost(shapes, attributes, (np.array([6.0, 1.0]),)).macs
    np.testing.assert_array_equal(executed, [144 * 6, 144])


def test_bad_attributes_and_sizes():
    with pytest.raises(ValueError, match="Expected the same stride in both dimensions. Received: 2 and 1"):
        GatedDepthwiseConv2DAttributes(stride_h=2)
    with pytest.raises(ValueError, match="strides of 1 with dilation"):
        GatedDepthwiseConv2DAttributes(stride_h=2, stride_w=2, dilation_h=2)
    x, g, kernel, bias = (np.ones(s, "float32") for s in ((2, 5, 5, 4), (2, 8), (3, 3, 4, 2), (8,)))
    for tensors, message in [
        ((x, g[:1], kernel, bias), "batch of `g_out` to be 2. Received: 1"),
        ((x, g[:, :4], kernel, bias), "channels of `g_out` to be 8. Received: 4"),
        ((x, g, kernel[:, :, :3], bias[:6]), "channels of `kernel` to be 4. Received: 3"),
        ((x, g, kernel, bias[:4]), "length of `bias` to be 8. Received: 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            ops.gated_depthwise_conv_2d(*tensors)
    with pytest.raises(ValueError, match="needs static height and width"):
        ops.gated_depthwise_conv_2d.cost(
            [(2, None, 5, 4), (2, 8), (3, 3, 4, 2), (8,)], GatedDepthwiseConv2DAttributes()
        )
