"""The int8 gated convolution against integer loops, by hand, and against the float op."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_efficient import ops
from keras_efficient.ops.gated_conv_2d_int8 import GatedConv2DInt8Attributes, quantized_bias, quantized_kernel

# JAX compiles every new shape.
EXAMPLES = 5 if keras.backend.backend() == "jax" else 40


def call(*arrays, **attributes):
    return keras.ops.convert_to_numpy(ops.gated_conv_2d_int8(*arrays, **attributes))


def naive(
    x,
    g_in,
    g_out,
    kernel,
    kernel_scale,
    bias,
    *,
    stride_h,
    stride_w,
    dilation_h,
    dilation_w,
    padding,
    activation,
    input_scale,
    input_zero_point,
    output_scale,
    output_zero_point,
):
    """The formula in loops over 64-bit integers, then float32 step by step."""
    x = (x.astype("int64") - input_zero_point) * (g_in != 0)[:, None, None, :]
    kernel = kernel.astype("int64")
    sizes = []
    for axis, stride, dilation in ((0, stride_h, dilation_h), (1, stride_w, dilation_w)):
        size, reach = x.shape[1 + axis], (kernel.shape[axis] - 1) * dilation + 1
        new = -(-size // stride) if padding == "same" else (size - reach) // stride + 1
        pad = max((new - 1) * stride + reach - size, 0) if padding == "same" else 0
        x = np.pad(x, [(pad // 2, pad - pad // 2) if i == 1 + axis else (0, 0) for i in range(4)])
        sizes.append(new)
    sums = np.zeros((len(x), *sizes, kernel.shape[3]), "int64")
    for p in range(sizes[0]):
        for q in range(sizes[1]):
            window = x[:, p * stride_h :: dilation_h, q * stride_w :: dilation_w]
            window = window[:, : kernel.shape[0], : kernel.shape[1]]
            sums[:, p, q] = np.einsum("bhwi,hwio->bo", window, kernel)
    sums += bias
    step = np.float32(input_scale) * kernel_scale
    if activation != "linear":
        sums = np.maximum(sums, 0)
    if activation == "relu6":
        sums = np.minimum(sums, np.rint(np.float32(6) / step).astype("int64"))
    multiplier = (step / np.float32(output_scale)) * g_out[:, None, None, :]
    scaled = np.rint(sums.astype("float32") * multiplier)
    return np.clip(scaled + output_zero_point, -128, 127).astype("int8")


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 10**6))
def test_equals_the_formula_in_integer_loops(seed):
    arrays, attributes = ops.gated_conv_2d_int8.example(np.random.default_rng(seed))
    np.testing.assert_array_equal(call(*arrays, **attributes), naive(*arrays, **attributes))


def test_worked_by_hand():
    # Zero point 10: the pixels are 20 and -5; the second input is shut, so its 99 is real zero.
    x = np.array([[[[30, 99], [5, 99]]]], "int8")
    kernel = np.array([[[[3, 5, 4], [7, 11, 13]]]], "int8")
    g_in, g_out = np.array([[1.0, 0.0]], "float32"), np.array([[0.5, 0.0, 1.0]], "float32")
    scale = np.array([0.25, 0.25, 0.125], "float32")
    y = call(
        x,
        g_in,
        g_out,
        kernel,
        scale,
        np.array([2, 2, -1], "int32"),
        activation="relu",
        input_scale=0.5,
        input_zero_point=10,
        output_scale=0.25,
        output_zero_point=-128,
    )
    # First output: 3 * 20 + 2 = 62 steps of 0.125, in output steps 31, half open 15.5, to even 16; then relu(-13) = 0.
    # Third: 4 * 20 - 1 = 79 steps of 0.0625, in output steps 19.75, rounded 20; then relu(-21) = 0.
    np.testing.assert_array_equal(y, [[[[16 - 128, -128, 20 - 128], [-128, -128, -128]]]])


@pytest.mark.parametrize(("value", "expected"), [(1, 0), (3, 2), (5, 2), (-1, 0), (-3, -2), (100, 50), (127, 64)])
def test_halves_go_to_even(value, expected):
    one = np.ones((1, 1), "float32")
    arrays = (np.full((1, 1, 1, 1), value, "int8"), one, one, np.ones((1, 1, 1, 1), "int8"), one[0])
    y = call(*arrays, np.zeros(1, "int32"), input_scale=0.5)
    assert y.item() == expected


@pytest.mark.parametrize(("zero_point", "expected"), [(0, (-128, 127)), (-128, (-128, 127)), (127, (-128, 127))])
def test_saturates(zero_point, expected):
    one = np.ones((1, 1), "float32")
    x = np.array([[[[-128], [127]]]], "int8")
    kernel = np.full((1, 1, 1, 1), 127, "int8")
    y = call(x, one, one, kernel, one[0], np.zeros(1, "int32"), output_zero_point=zero_point)
    assert tuple(y.ravel()) == expected


def test_relu6_is_cut_at_six():
    one = np.ones((1, 1), "float32")
    x = np.array([[[[-5], [50], [61], [127]]]], "int8")
    arrays = (x, one, one, np.ones((1, 1, 1, 1), "int8"), one[0], np.zeros(1, "int32"))
    y = call(*arrays, activation="relu6", input_scale=0.1, output_scale=0.1)
    np.testing.assert_array_equal(y.ravel(), [0, 50, 60, 60])


def test_the_picture_is_padded_with_real_zero():
    x = np.full((1, 2, 2, 1), 7, "int8")  # its zero point: everything is zero
    one = np.ones((1, 1), "float32")
    kernel = np.full((3, 3, 1, 1), 5, "int8")
    y = call(x, one, one, kernel, one[0], np.array([3], "int32"), padding="same", input_zero_point=7)
    np.testing.assert_array_equal(y, np.full((1, 2, 2, 1), 3))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 10**6))
def test_agrees_with_the_float_op_on_the_numbers_that_the_integers_stand_for(seed):
    arrays, attributes = ops.gated_conv_2d_int8.example(np.random.default_rng(seed))
    x, g_in, g_out, kernel, kernel_scale, bias = arrays
    scales = {key: attributes[key] for key in attributes if "scale" in key or "zero_point" in key}
    real = scales["input_scale"] * (x.astype("float32") - scales["input_zero_point"])
    step = scales["input_scale"] * kernel_scale
    plain = {key: value for key, value in attributes.items() if key not in scales}
    expected = ops.gated_conv_2d(real, g_in, g_out, kernel * kernel_scale, bias * step, **plain)
    expected = keras.ops.convert_to_numpy(expected)
    # Half a step of rounding, and half a step of the accumulator where relu6 cuts.
    bound = scales["output_scale"] * 0.501 + step.max() * 0.5 + 1e-4
    low, high = ((edge - scales["output_zero_point"]) * scales["output_scale"] for edge in (-128, 127))
    y = (call(*arrays, **attributes).astype("float32") - scales["output_zero_point"]) * scales["output_scale"]
    np.testing.assert_allclose(y, np.clip(expected, low, high), atol=bound)


def test_weights_round_to_the_nearest_step_of_their_channel():
    kernel = np.array([[1.27, 0.0, -2.54], [-0.5, 0.0, 1.27]], "float32").reshape(1, 1, 2, 3)
    integers, scale = quantized_kernel(kernel)
    np.testing.assert_allclose(scale, [0.01, 1.0, 0.02], rtol=1e-6)
    np.testing.assert_array_equal(integers.reshape(2, 3), [[127, 0, -127], [-50, 0, 64]])
    np.testing.assert_array_equal(quantized_bias(np.array([1.0, 2.0, -0.5]), 0.5, scale), [200, 4, -50])


def test_cost_is_that_of_the_float_op_and_a_quarter_of_its_bytes():
    shapes = [(2, 8, 8, 4), (2, 4), (2, 6), (3, 3, 4, 6), (6,), (6,)]
    attributes = GatedConv2DInt8Attributes(padding="same")
    dense = ops.gated_conv_2d_int8.cost(shapes, attributes)
    assert dense.macs == 576 * 24
    assert dense.weight_bytes == 9 * 24 + 8 * 6
    executed = ops.gated_conv_2d_int8.cost(shapes, attributes, (np.array([4.0, 1.0]), np.array([6.0, 2.0]))).macs
    np.testing.assert_array_equal(executed, [576 * 24, 576 * 2])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"input_zero_point": 128}, "`input_zero_point`. Expected int between -128 and 127. Received: 128"),
        ({"output_zero_point": 0.5}, "`output_zero_point`"),
        ({"input_scale": 0.0}, "`input_scale`"),
        ({"output_scale": float("nan")}, "`output_scale`"),
        ({"stride_h": 2, "dilation_w": 2}, "strides of 1 with dilation"),
    ],
)
def test_bad_attributes(attributes, message):
    with pytest.raises(ValueError, match="Invalid") as caught:
        GatedConv2DInt8Attributes(**attributes)
    assert message in str(caught.value)


def test_tensors_that_do_not_fit():
    arrays, attributes = ops.gated_conv_2d_int8.example(np.random.default_rng(0))
    x, g_in, g_out, kernel, kernel_scale, bias = arrays
    filters = kernel.shape[3]
    for tensors, message in [
        ((x, g_in, g_out, kernel, kernel_scale[:-1], bias), f"length of `kernel_scale` to be {filters}"),
        ((x, g_in, g_out, kernel, kernel_scale, bias[:-1]), f"length of `bias` to be {filters}"),
        ((x.astype("float32"), g_in, g_out, kernel, kernel_scale, bias), "`x` of op.*Expected int8"),
        ((x, g_in, g_out, kernel, kernel_scale, bias.astype("float32")), "`bias` of op.*Expected int32"),
    ]:
        with pytest.raises(ValueError, match=message):
            ops.gated_conv_2d_int8(*tensors, **attributes)
