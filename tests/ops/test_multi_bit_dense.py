import itertools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_efficient import ops
from keras_efficient.ops.bits import pack_signs, sketch_dense_kernel, sketch_group, unpack_signs
from keras_efficient.ops.multi_bit_dense import MultiBitDenseAttributes

# JAX compiles every new shape.
EXAMPLES = 5 if keras.backend.backend() == "jax" else 40


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 10**6))
def test_agrees_with_weights_summed_in_numpy(seed):
    (x, bits, scales, bias), attributes = ops.multi_bit_dense.example(np.random.default_rng(seed))
    signs = unpack_signs(bits).astype("float64")
    weights = np.einsum("opi,opin->opn", scales.astype("float64"), signs).reshape(len(bits), -1)[:, : x.shape[1]]
    y = x @ weights.T + bias
    if attributes["activation"] != "linear":
        y = np.clip(y, 0, 6 if attributes["activation"] == "relu6" else None)
    actual = keras.ops.convert_to_numpy(ops.multi_bit_dense(x, bits, scales, bias, **attributes))
    np.testing.assert_allclose(actual, y, atol=1e-4)


def test_worked_by_hand():
    # One output, one group of 8, two bases: signs (+ + - - + + + +) * 0.5 and all minus * 0.25 over inputs 1..8.
    bits = np.array([[[[0b00001100], [0b11111111]]]], "uint8")
    scales = np.array([[[0.5, 0.25]]], "float32")
    x = np.arange(1, 9, dtype="float32")[None]
    y = ops.multi_bit_dense(x, bits, scales, np.array([1.0], "float32"), group_size=8)
    assert float(y[0, 0]) == 0.5 * (36 - 2 * 7) - 0.25 * 36 + 1


def test_packing_is_least_significant_bit_first_and_one_for_minus():
    signs = np.array([-1, 1, 1, 1, 1, 1, 1, 1, 1, -1, 1, 1, 1, 1, 1, -1])
    np.testing.assert_array_equal(pack_signs(signs), [1, 2 + 128])
    np.testing.assert_array_equal(unpack_signs(pack_signs(signs)), signs)
    with pytest.raises(ValueError, match="divisible by 8"):
        pack_signs(np.ones(9))


def test_one_basis_is_the_mean_magnitude():
    # min over alpha of ||w - alpha sign(w)|| is the mean of |w|.
    w = np.array([1.0, -2.0, 3.0, 0.0])
    signs, scales = sketch_group(w, 1)
    np.testing.assert_array_equal(signs, [[1, -1, 1, 1]])
    np.testing.assert_allclose(scales, [1.5])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 5))
def test_sketch_properties(seed, size, bases):
    w = np.random.default_rng(seed).normal(size=size)
    errors = []
    for count in range(1, bases + 1):
        signs, scales = sketch_group(w, count)
        assert len(signs) == len(scales) <= count
        assert (scales > 0).all()
        assert (np.diff(scales) >= 0).all()
        errors.append(np.sum((w - scales @ signs) ** 2))
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(errors))
    assert errors[0] <= np.sum(w**2)


def test_group_of_zeros_needs_no_basis_and_exact_groups_stop_early():
    assert len(sketch_group(np.zeros(8), 3)[0]) == 0
    signs, _ = sketch_group(np.array([0.5, -0.5, 0.5, 0.5]), 4)
    assert len(signs) == 1


def test_padded_group_fits_only_real_weights():
    kernel = np.array([[1.0], [-1.0], [3.0]])
    bits, scales = sketch_dense_kernel(kernel, 1, 8)
    assert bits.shape == (1, 1, 1, 1)
    np.testing.assert_allclose(scales, [[[5 / 3]]])


def test_cost():
    shapes = [(1, 100), (10, 2, 3, 8), (10, 2, 3), (10,)]
    cost = ops.multi_bit_dense.cost(shapes, MultiBitDenseAttributes(group_size=64))
    assert cost.macs == 1000
    assert cost.weight_bytes == 10 * 2 * 3 * (8 + 4) + 40


@pytest.mark.parametrize("group_size", [4, 12, 65544, "64"])
def test_bad_group_size(group_size):
    with pytest.raises(ValueError, match="`group_size`"):
        MultiBitDenseAttributes(group_size=group_size)
