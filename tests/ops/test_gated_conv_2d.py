import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_efficient import ops
from keras_efficient.ops.gated_conv_2d import GatedConv2DAttributes

# JAX compiles every new shape.
EXAMPLES = 5 if keras.backend.backend() == "jax" else 40


def naive(x, g_in, g_out, kernel, bias, *, stride_h, stride_w, dilation_h, dilation_w, padding, activation):
    """The formula in loops over NumPy doubles, with padding worked out here."""
    x, kernel = np.asarray(x, "float64"), np.asarray(kernel, "float64")
    height, width = x.shape[1:3]
    kernel_h, kernel_w = kernel.shape[:2]
    reach_h, reach_w = (kernel_h - 1) * dilation_h + 1, (kernel_w - 1) * dilation_w + 1
    top = left = 0
    if padding == "same":
        new_h, new_w = -(-height // stride_h), -(-width // stride_w)
        pad_h = max((new_h - 1) * stride_h + reach_h - height, 0)
        pad_w = max((new_w - 1) * stride_w + reach_w - width, 0)
        top, left = pad_h // 2, pad_w // 2
        x = np.pad(x, ((0, 0), (top, pad_h - top), (left, pad_w - left), (0, 0)))
    else:
        new_h, new_w = (height - reach_h) // stride_h + 1, (width - reach_w) // stride_w + 1
    y = np.zeros((len(x), new_h, new_w, kernel.shape[3]))
    for b in range(len(x)):
        for p in range(new_h):
            for q in range(new_w):
                for i in np.flatnonzero(g_in[b]):
                    window = x[b, p * stride_h :: dilation_h, q * stride_w :: dilation_w, i][:kernel_h, :kernel_w]
                    y[b, p, q] += np.tensordot(window, kernel[:, :, i], 2)
    y += bias
    if activation != "linear":
        y = np.clip(y, 0, 6 if activation == "relu6" else None)
    return y * np.asarray(g_out, "float64")[:, None, None]


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 10**6))
def test_agrees_with_the_formula_in_loops(seed):
    arrays, attributes = ops.gated_conv_2d.example(np.random.default_rng(seed))
    y = keras.ops.convert_to_numpy(ops.gated_conv_2d(*arrays, **attributes))
    np.testing.assert_allclose(y, naive(*arrays, **attributes), atol=2e-5)


def test_worked_by_hand():
    # Two pixels, two channels; the second input is shut, the first output is scaled, the second is shut.
    x = np.array([[[[2.0, 100.0], [-1.0, 100.0]]]], "float32")
    kernel = np.array([[[[3.0, 5.0], [7.0, 11.0]]]], "float32")
    g_in, g_out = np.array([[1.0, 0.0]], "float32"), np.array([[0.5, 0.0]], "float32")
    y = ops.gated_conv_2d(x, g_in, g_out, kernel, np.array([1.0, 1.0], "float32"), activation="relu")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(y), [[[[3.5, 0.0], [0.0, 0.0]]]])


def test_input_gate_is_a_mask_and_no_scale():
    arrays, attributes = ops.gated_conv_2d.example(np.random.default_rng(3))
    scaled = [arrays[0], arrays[1] * 0.25, *arrays[2:]]
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(ops.gated_conv_2d(*arrays, **attributes)),
        keras.ops.convert_to_numpy(ops.gated_conv_2d(*scaled, **attributes)),
    )


def test_cost_counts_open_channels():
    # 8 x 8 positions x 3 x 3 taps = 576 per pair of channels.
    shapes = [(2, 8, 8, 4), (2, 4), (2, 6), (3, 3, 4, 6), (6,)]
    attributes = GatedConv2DAttributes(padding="same")
    assert ops.gated_conv_2d.cost(shapes, attributes).macs == 576 * 24
    assert ops.gated_conv_2d.cost(shapes, attributes).weight_bytes == 4 * (9 * 24 + 6)
    executed = ops.gated_conv_2d.cost(shapes, attributes, (np.array([4.0, 1.0]), np.array([6.0, 2.0]))).macs
    np.testing.assert_array_equal(executed, [576 * 24, 576 * 2])


def test_recorded_cost_is_that_of_the_gates_and_of_surrounding_masks():
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=(2, 8, 8, 4)),
        [[1, 1, 0, 0], [0, 0, 0, 1]],
        [[0.5, 0, 0], [1, 1, 1]],
        rng.normal(size=(3, 3, 4, 3)),
        np.zeros(3),
    ]
    arrays = [np.asarray(array, "float32") for array in arrays]
    with ops.recording() as events, ops.executed_when(keras.ops.convert_to_tensor([1.0, 0.0])):
        ops.gated_conv_2d(*arrays, padding="same")
    (event,) = events
    assert event.by_op
    assert event.dense == 576 * 12
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(event.executed), [576 * 2 * 1, 0])


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"stride_h": 0}, "`stride_h`. Expected int between 1 and 64. Received: 0"),
        ({"stride_w": 1.5}, "`stride_w`"),
        ({"dilation_h": True}, "`dilation_h`"),
        ({"padding": "full"}, "`padding`. Expected one of"),
        ({"activation": "gelu"}, "`activation`"),
        ({"stride_h": 2, "dilation_w": 2}, "strides of 1 with dilation"),
    ],
)
def test_bad_attributes(attributes, message):
    with pytest.raises(ValueError) as caught:
        GatedConv2DAttributes(**attributes)
    assert message in str(caught.value)


def test_sizes_that_do_not_fit():
    x, g_in, g_out = np.ones((2, 5, 5, 4), "float32"), np.ones((2, 4), "float32"), np.ones((2, 3), "float32")
    kernel, bias = np.ones((3, 3, 4, 3), "float32"), np.ones(3, "float32")
    for tensors, message in [
        ((x, g_in[:1], g_out, kernel, bias), "batch of `g_in` to be 2. Received: 1"),
        ((x, g_in, g_out[:, :1], kernel, bias), "channels of `g_out` to be 3. Received: 1"),
        ((x, g_in, g_out, kernel[:, :, :3], bias), "input channels of `kernel` to be 4. Received: 3"),
        ((x, g_in, g_out, kernel, bias[:2]), "length of `bias` to be 3. Received: 2"),
        ((x.astype("uint8"), g_in, g_out, kernel, bias), "dtype for argument `x`.*Expected float32. Received: uint8"),
    ]:
        with pytest.raises(ValueError, match=message):
            ops.gated_conv_2d(*tensors)


def test_wrong_tensors():
    arrays, attributes = ops.gated_conv_2d.example(np.random.default_rng(0))
    with pytest.raises(ValueError, match="expected 5 tensors"):
        ops.gated_conv_2d(*arrays[:4], **attributes)
    with pytest.raises(ValueError, match="`g_in` of op `ke.gated_conv_2d`. Expected rank 2"):
        ops.gated_conv_2d(arrays[0], arrays[1][0], *arrays[2:], **attributes)
