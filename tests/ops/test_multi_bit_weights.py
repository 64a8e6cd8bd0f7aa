import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_efficient import ops
from keras_efficient.ops import bits as packing
from keras_efficient.ops.multi_bit_conv_2d import MultiBitConv2DAttributes
from keras_efficient.ops.multi_bit_weights import MultiBitAttributes, float_weights, quantized_inputs, unpacked_widths

# JAX compiles every new shape.
EXAMPLES = 5 if keras.backend.backend() == "jax" else 25


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_packing_by_hand():
    # Two outputs, two groups of three: widths 1 0 and 2 1, two bits each; rows + - -, - - -, + + -, - + +.
    signs = np.ones((2, 2, 2, 3), int)
    signs[0, 0, 0], signs[1, 0, 0], signs[1, 0, 1], signs[1, 1, 0] = [1, -1, -1], [-1, -1, -1], [1, 1, -1], [-1, 1, 1]
    scales = np.zeros((2, 2, 2))
    scales[0, 0, 0], scales[1, 0], scales[1, 1, 0] = 0.5, [2, 3], 4
    packed = packing.pack(signs, scales, np.array([[1, 0], [2, 1]]))
    np.testing.assert_array_equal(packed.widths, [0b01_10_00_01])
    np.testing.assert_array_equal(packed.bits, [0b00_111_110, 0b0000_001_1])
    np.testing.assert_array_equal(packed.scales, [0.5, 2, 3, 4])
    weights = float_weights(np.array([8], "int32"), *packed, outputs=2, length=5, group_size=3, bases=2)
    np.testing.assert_array_equal(array(weights), [[0.5, -0.5, -0.5, 0, 0], [1, 1, -5, -4, 4]])
    weights = float_weights(np.array([1], "int32"), *packed, outputs=2, length=5, group_size=3, bases=2)
    np.testing.assert_array_equal(array(weights)[1], [-2, -2, -2, -4, 4])


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 10**6))
def test_packing_round_trip(seed):
    rng = np.random.default_rng(seed)
    outputs, groups, bases, size = (int(v) for v in rng.integers(1, (6, 5, 9, 20)))
    widths = rng.integers(0, bases + 1, (outputs, groups))
    signs, scales = rng.choice([-1, 1], (outputs, groups, bases, size)), rng.normal(size=(outputs, groups, bases))
    packed = packing.pack(signs, scales, widths, bases)
    assert packed.bits.size == max(-(-int(widths.sum()) * size // 8), -(-size // 8))
    found_signs, found_scales, found_widths = packing.unpack(packed, outputs, groups, size, bases)
    live = np.arange(bases) < widths[..., None]
    np.testing.assert_array_equal(found_widths, widths)
    np.testing.assert_array_equal(found_signs[live], signs[live])
    np.testing.assert_array_equal(found_scales[live], scales[live].astype("float32"))
    np.testing.assert_array_equal(array(unpacked_widths(packed.widths, outputs * groups, bases))[:, 0], widths.ravel())


def test_codes_of_dead_bases_are_left_out():
    codes = np.array([[[0b101, 0b000, 0b111]]], "uint8")  # bases: - + -, + + -, - + -
    packed, bases = packing.pack_codes(codes, np.array([[[0.0, 2.0, 1.0]]]))
    assert bases == 2
    np.testing.assert_array_equal(packed.scales, [2, 1])
    signs, _, widths = packing.unpack(packed, 1, 1, 3, bases)
    np.testing.assert_array_equal(signs[0, 0], [[1, 1, -1], [-1, 1, -1]])
    np.testing.assert_array_equal(widths, [[2]])


def test_bytes_are_those_of_the_accounting():
    # A layer of VGG-small: 512 outputs, 9 taps of 512 channels, 0.66 bits on average.
    rng = np.random.default_rng(0)
    widths = rng.choice(3, (512, 9), p=[0.5, 0.34, 0.16])
    packed = packing.pack(np.ones((512, 9, 2, 512), "int8"), np.ones((512, 9, 2)), widths)
    accounted = widths.sum() * (512 / 8 + 4)
    assert accounted <= sum(array.nbytes for array in packed) <= 1.03 * accounted


def test_levels_by_hand():
    # Levels 1 +- 0.5 +- 2: -1.5, -0.5, 2.5, 3.5; middles -1, 1, 3, which belong to the upper one.
    x = np.array([-9, -1.1, -1, 0.9, 1, 2.9, 3, 9], "float32")
    levels = np.array([1.0, 0.5, 2.0], "float32")
    expected = [-1.5, -1.5, -0.5, -0.5, 2.5, 2.5, 3.5, 3.5]
    np.testing.assert_array_equal(array(quantized_inputs(keras.ops.convert_to_tensor(x), levels, 2)), expected)


def unpacked(arrays, attributes, length):
    """Float weights in NumPy, from the bits themselves."""
    _, max_bits, *streams, _, bias = arrays
    size, bases = attributes["group_size"], attributes["bases"]
    signs, scales, _ = packing.unpack(packing.Packed(*streams), len(bias), -(-length // size), size, bases)
    kept = min(int(max_bits.min()), bases)
    weights = np.einsum("ogi,ogin->ogn", scales[:, :, :kept].astype("float64"), signs[:, :, :kept].astype("float64"))
    return weights.reshape(len(bias), -1)[:, :length]


def nearest(x, levels):
    bits = len(levels) - 1
    if bits == 0:
        return x.astype("float64")
    signs = 2 * (np.arange(2**bits)[:, None] >> np.arange(bits) & 1) - 1
    values = levels[0] + signs @ levels[1:]
    return values[np.abs(x[..., None] - values).argmin(-1)]


def activated(y, activation):
    return y if activation == "linear" else np.clip(y, 0, 6 if activation == "relu6" else None)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 10**6))
def test_convolution_agrees_with_weights_summed_in_numpy(seed):
    arrays, attributes = ops.multi_bit_conv_2d.example(np.random.default_rng(seed))
    x, _, _, _, _, levels, bias = arrays
    height, width, channels = attributes["kernel_h"], attributes["kernel_w"], x.shape[-1]
    weights = unpacked(arrays, attributes, height * width * channels)
    if attributes["order"] == "hwi":
        kernel = weights.reshape(-1, height, width, channels).transpose(1, 2, 3, 0)
    else:
        kernel = weights.reshape(-1, channels, height, width).transpose(2, 3, 1, 0)
    y = keras.ops.conv(
        nearest(x, levels).astype("float32"),
        kernel.astype("float32"),
        strides=(attributes["stride_h"], attributes["stride_w"]),
        padding=attributes["padding"],
        dilation_rate=(attributes["dilation_h"], attributes["dilation_w"]),
        data_format="channels_last",
    )
    expected = activated(array(y) + bias, attributes["activation"])
    np.testing.assert_allclose(array(ops.multi_bit_conv_2d(*arrays, **attributes)), expected, atol=2e-4)


@pytest.mark.parametrize("name", ["multi_bit_conv_2d", "multi_bit_dense"])
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 10**6))
def test_int8_is_the_op_on_what_the_integers_stand_for(name, seed):
    op, on_integers = getattr(ops, name), getattr(ops, f"{name}_int8")
    (x, *tensors), attributes = on_integers.example(np.random.default_rng(seed))
    y = array(on_integers(x, *tensors, **attributes)).astype("float64")
    names = ("input_scale", "input_zero_point", "output_scale", "output_zero_point")
    in_scale, in_zero, out_scale, out_zero = (attributes.pop(name) for name in names)
    real = (x.astype("float32") - in_zero) * np.float32(in_scale)
    steps = array(op(real, *tensors, **attributes)) / out_scale + out_zero
    assert np.abs(y - np.clip(steps, -128, 127)).max() <= 0.5 + 1e-3


def test_cost():
    attributes = MultiBitConv2DAttributes(kernel_h=3, kernel_w=3, group_size=16, bases=3, padding="same")
    shapes = [(1, 8, 8, 16), (1,), (23,), (200,), (100,), (1,), (10,)]
    cost = ops.multi_bit_conv_2d.cost(shapes, attributes)
    assert cost.macs == 64 * 9 * 16 * 10
    assert cost.weight_bytes == 23 + 200 + 4 * (100 + 1 + 10)


@pytest.mark.parametrize(
    ("place", "size", "message"),
    [
        (2, 22, "bytes of `widths` to be 23"),
        (3, 201, "bytes of `bits` to be 200"),
        (5, 2, "length of `levels` to be 1"),
    ],
)
def test_sizes_that_do_not_fit(place, size, message):
    shapes = [(1, 8, 8, 16), (1,), (23,), (200,), (100,), (1,), (10,)]
    shapes[place] = (size,)
    with pytest.raises(ValueError, match=message):
        ops.multi_bit_conv_2d.output_shape(
            shapes, MultiBitConv2DAttributes(kernel_h=3, kernel_w=3, group_size=16, bases=3)
        )


@pytest.mark.parametrize("attributes", [{"bases": 9}, {"bases": -1}, {"group_size": 0}, {"activation_bits": 4}])
def test_bad_attributes(attributes):
    with pytest.raises(ValueError, match=f"`{next(iter(attributes))}`"):
        MultiBitAttributes(**attributes)


def test_bad_arrays():
    with pytest.raises(ValueError, match="Expected bit-widths from 0 to 2. Received: 0 to 3"):
        packing.pack(np.ones((1, 2, 2, 4)), np.ones((1, 2, 2)), np.array([[0, 3]]))
    with pytest.raises(ValueError, match=r"Expected \[O, G, I, n\]"):
        packing.pack(np.ones((1, 2, 2, 4)), np.ones((1, 2, 1)), np.array([[0, 3]]))
