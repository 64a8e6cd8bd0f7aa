import keras
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_efficient import ops
from keras_efficient.ops import bits as packing
from keras_efficient.ops.multi_bit_weights import MultiBitAttributes

# JAX compiles every new shape.
EXAMPLES = 5 if keras.backend.backend() == "jax" else 40


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 10**6))
def test_agrees_with_weights_summed_in_numpy(seed):
    arrays, attributes = ops.multi_bit_dense.example(np.random.default_rng(seed))
    x, max_bits, widths, bits, scales, levels, bias = arrays
    size, bases = attributes["group_size"], attributes["bases"]
    packed = packing.Packed(widths, bits, scales)
    signs, alphas, _ = packing.unpack(packed, len(bias), -(-x.shape[1] // size), size, bases)
    kept = min(int(max_bits.min()), bases)
    weights = np.einsum("ogi,ogin->ogn", alphas[:, :, :kept].astype("float64"), signs[:, :, :kept].astype("float64"))
    if len(levels) > 1:
        count = len(levels) - 1
        values = levels[0] + (2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1) - 1) @ levels[1:]
        x = values[np.abs(x[..., None] - values).argmin(-1)]
    y = x @ weights.reshape(len(bias), -1)[:, : x.shape[1]].T + bias
    if attributes["activation"] != "linear":
        y = np.clip(y, 0, 6 if attributes["activation"] == "relu6" else None)
    actual = keras.ops.convert_to_numpy(ops.multi_bit_dense(*arrays, **attributes))
    np.testing.assert_allclose(actual, y, atol=2e-4)


def test_worked_by_hand():
    # One output, one group of 8, two bases: signs (+ + - - + + + +) * 0.5 and all minus * 0.25 over inputs 1..8.
    signs = np.array([[[[1, 1, -1, -1, 1, 1, 1, 1], [-1] * 8]]])
    packed = packing.pack(signs, np.array([[[0.5, 0.25]]]), np.array([[2]]))
    x, bias = np.arange(1, 9, dtype="float32")[None], np.array([1.0], "float32")
    for max_bits, expected in ((8, 0.5 * (36 - 2 * 7) - 0.25 * 36 + 1), (1, 0.5 * (36 - 2 * 7) + 1), (0, 1)):
        tensors = (x, np.array([max_bits], "int32"), *packed, np.zeros(1, "float32"), bias)
        assert float(ops.multi_bit_dense(*tensors, group_size=8, bases=2)[0, 0]) == expected


def test_cost():
    shapes = [(1, 100), (1,), (5,), (240,), (30,), (1,), (10,)]
    cost = ops.multi_bit_dense.cost(shapes, MultiBitAttributes(group_size=64, bases=2))
    assert cost.macs == 1000
    assert cost.weight_bytes == 5 + 240 + 4 * (30 + 1 + 10)
