import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_efficient import bases


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def tensor(values):
    return ops.convert_to_tensor(np.asarray(values, "float32"))


def random_groups(seed, rows=7, size=13, count=3):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**count, (rows, size)).astype("uint8")
    scales = rng.uniform(0.1, 1.0, (rows, count)).astype("float32")
    return rng, codes, scales


def signs_of(codes, count):
    return 1.0 - 2.0 * (codes[:, None, :] >> np.arange(count)[None, :, None] & 1)


def test_codes_by_hand():
    codes = np.asarray([[0b00, 0b01, 0b10, 0b11]], "uint8")
    np.testing.assert_array_equal(array(bases.signs(codes, 2)), [[[1, -1, 1, -1], [1, 1, -1, -1]]])
    np.testing.assert_array_equal(array(bases.reconstructed(codes, tensor([[2, 0.5]]))), [[2.5, -1.5, 1.5, -2.5]])
    turned, scales = bases.flipped_positive(codes, tensor([[-2, 0.5]]))
    np.testing.assert_array_equal(array(turned), [[0b01, 0b00, 0b11, 0b10]])
    np.testing.assert_array_equal(array(scales), [[2, 0.5]])


def test_dropping_an_empty_basis_changes_no_bit():
    _, codes, scales = random_groups(0, count=4)
    scales[:, 2] = 0
    kept = (codes & 3) | (codes >> 3 & 1) << 2
    whole = array(bases.reconstructed(codes, tensor(scales)))
    np.testing.assert_array_equal(array(bases.reconstructed(kept.astype("uint8"), tensor(scales[:, [0, 1, 3]]))), whole)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1, 2, 3, 5]))
def test_assignment_equals_brute_force(seed, count):
    rng, _, scales = random_groups(seed, count=count)
    scales[0, -1] = 0  # a basis that is not live
    targets = rng.normal(size=(7, 13)).astype("float32")
    found = array(bases.reconstructed(bases.assigned(tensor(targets), tensor(scales)), tensor(scales)))
    every = np.asarray(list(itertools.product([-1.0, 1.0], repeat=count)))
    values = scales @ every.T
    nearest = np.abs(targets[:, :, None] - values[:, None, :]).min(axis=-1)
    np.testing.assert_allclose(np.abs(found - targets), nearest, atol=1e-5)


def test_assignment_to_no_basis():
    assert not array(bases.assigned(tensor(np.ones((2, 3))), tensor(np.zeros((2, 0))))).any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-12, 1e3))
def test_fitted_scales_solve_the_weighted_least_squares(seed, magnitude):
    rng, codes, _ = random_groups(seed, size=40)
    targets = rng.normal(size=(7, 40))
    weighting = magnitude * rng.uniform(0.1, 2.0, (7, 40))
    live = (rng.uniform(size=(7, 3)) > 0.3).astype("float32")
    found = array(bases.fitted(codes, tensor(live), tensor(targets), tensor(weighting)))
    basis = signs_of(codes, 3) * live[:, :, None]
    for row in range(7):
        root = np.sqrt(weighting[row])
        expected = np.linalg.lstsq((basis[row] * root).T, targets[row] * root, rcond=None)[0] * live[row]
        np.testing.assert_allclose(found[row], expected, atol=2e-4)


def test_sketch():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(5, 30))
    weights[4] = 0
    before = np.square(weights).sum(axis=1)
    for count in range(1, 6):
        codes, scales = bases.sketched(weights, count)
        assert (np.diff(scales, axis=1) <= 0).all()
        residual = weights - array(bases.reconstructed(codes, tensor(scales)))
        energy = np.square(residual).sum(axis=1)
        assert (energy <= before + 1e-6).all()
        before = energy
        for row in range(4):  # scales are the least-squares optimum
            basis = signs_of(codes[row : row + 1], count)[0]
            expected = np.linalg.lstsq(basis.T, weights[row], rcond=None)[0]
            np.testing.assert_allclose(scales[row], expected, atol=1e-5)
        assert not scales[4].any()


def test_sketch_stops_where_nothing_is_left():
    codes, scales = bases.sketched(np.asarray([[2.0, -2.0, 2.0], [1.0, 1.0, -3.0]]), 3)
    np.testing.assert_allclose(scales, [[2, 0, 0], [2, 1, 0]], atol=1e-6)
    assert codes[0].tolist() == [0, 1, 0]


def test_moments_are_those_of_amsgrad():
    rng = np.random.default_rng(0)
    moments = tuple(tensor(np.zeros((2, 3))) for _ in range(3))
    m = v = largest = np.zeros((2, 3))
    for steps in range(1, 6):
        gradient = rng.normal(size=(2, 3)) / steps
        moments = bases.updated(moments, tensor(gradient))
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        largest = np.maximum(largest, v)
        slope, curvature = bases.amsgrad(moments, 0.01, np.float32(steps))
        np.testing.assert_allclose(array(slope), 0.01 * m / (1 - 0.9**steps), rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(array(curvature), (np.sqrt(largest) + 1e-8) / np.sqrt(1 - 0.999**steps), rtol=1e-4)


def state_of(codes, scales, rng):
    weights = array(bases.reconstructed(codes, tensor(scales)))
    moments = tuple(tensor(rng.uniform(0.01, 0.1, part.shape)) for part in (weights, weights, weights))
    scale_moments = tuple(tensor(np.zeros(scales.shape)) for _ in range(3))
    return bases.GroupState(codes, tensor(scales), tensor(weights), tensor(weights), moments, scale_moments)


def quadratic(state, gradient, weights, rate, steps):
    """The modelled change of the loss from the state's weights to others, per group."""
    slope, curvature = bases.amsgrad(bases.updated(state.weight_moments, gradient), rate, steps)
    move = array(weights) - array(state.weights)
    return (array(slope) * move + 0.5 * array(curvature) * move**2).sum(axis=1)


@pytest.mark.parametrize("mode", ["basis", "latent"])
def test_basis_step_lowers_the_model_and_is_stationary_in_the_scales(mode):
    rng, codes, scales = random_groups(3, size=64)
    state = state_of(codes, scales, rng)
    gradient = tensor(rng.normal(size=(7, 64)))
    after = bases.step(state, gradient, mode, 0.5, np.float32(5))
    assert (quadratic(state, gradient, after.weights, 0.5, np.float32(5)) < 0).all()
    assert (array(after.scales) >= 0).all()
    np.testing.assert_allclose(array(after.weights), array(bases.reconstructed(after.codes, after.scales)))
    slope, curvature = bases.amsgrad(after.weight_moments, 0.5, np.float32(5))
    slopes = array(slope) + array(curvature) * (array(after.weights) - array(state.weights))
    in_scales = (signs_of(array(after.codes), 3) * slopes[:, None, :]).sum(axis=-1)
    np.testing.assert_allclose(in_scales, 0, atol=2e-3)
    if mode == "basis":
        sums = array(after.weight_moments[1]).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(array(after.scale_moments[1]), np.repeat(sums, 3, axis=1), rtol=1e-5)
    else:
        target = array(state.latent) - array(slope) / array(curvature)
        np.testing.assert_allclose(array(after.latent), target, rtol=1e-5, atol=1e-6)


def test_coordinate_step_is_amsgrad_on_the_scales():
    rng, codes, scales = random_groups(4)
    scales[2, 1] = 0
    state = state_of(codes, scales, rng)
    gradient = rng.normal(size=(7, 13))
    after = bases.step(state, tensor(gradient), "coordinate", 0.01, np.float32(1))
    slopes = (signs_of(codes, 3) * gradient[:, None, :]).sum(axis=-1)
    expected = np.where(scales != 0, scales - 0.01 * np.sign(slopes), 0)  # the first step of AMSGrad
    np.testing.assert_allclose(array(after.scales), expected, atol=1e-5)
    np.testing.assert_array_equal(array(after.codes), codes)
    assert array(bases.step(state, tensor(gradient), "moments", 0.01, np.float32(1)).scales)[0, 0] == scales[0, 0]


def test_importance_is_the_models_change():
    scales, moments = tensor([[2.0, 0.0]]), tuple(tensor([[x, x]]) for x in (0.3, 0.04, 0.04))
    slope, curvature = (array(part)[0, 0] for part in bases.amsgrad(moments, 0.1, np.float32(3)))
    found = array(bases.importance(scales, moments, 0.1, np.float32(3)))
    np.testing.assert_allclose(found, [[-slope * 2 + 0.5 * curvature * 4, 0]], rtol=1e-5)


@pytest.mark.parametrize("structure", ["channelwise", "pixelwise", "kernelwise"])
def test_groups_of_a_convolution(structure):
    kernel = np.arange(2 * 3 * 4 * 5, dtype="float32").reshape(2, 3, 4, 5)
    grouping = bases.conv_grouping(kernel.shape, structure)
    rows = array(grouping.rows(kernel))
    first = {
        "channelwise": kernel[..., 0].ravel(),
        "pixelwise": kernel[0, 0, :, 0],
        "kernelwise": kernel[:, :, 0, 0].ravel(),
    }
    np.testing.assert_array_equal(rows[0], first[structure])
    assert rows.shape == (grouping.num_groups, grouping.size)
    np.testing.assert_array_equal(array(grouping.kernel(rows)), kernel)


def test_groups_of_a_dense_layer():
    kernel = np.arange(12, dtype="float32").reshape(6, 2)
    grouping = bases.dense_grouping(6, 2, 3)
    np.testing.assert_array_equal(array(grouping.rows(kernel)), [[0, 2, 4], [6, 8, 10], [1, 3, 5], [7, 9, 11]])
    np.testing.assert_array_equal(array(grouping.kernel(grouping.rows(kernel))), kernel)
    assert [bases.default_group_size(n) for n in (10, 70, 1024, 127, 134)] == [10, 35, 64, 127, 67]
    with pytest.raises(ValueError, match="`group_size`. Expected a divisor of the layer's 6 inputs. Received: 4"):
        bases.dense_grouping(6, 2, 4)
    with pytest.raises(ValueError, match="`groups`. Expected one of .* Received: 'rowwise'"):
        bases.conv_grouping((3, 3, 1, 1), "rowwise")


def test_group_counts_of_the_paper():
    """VGG-small has 14,022,016 weights in 33,556 groups, LeNet-5 430,500 in 2,030."""
    filters = [(3, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    vgg = [bases.conv_grouping((3, 3, *f), "channelwise" if f[0] == 3 else "pixelwise") for f in filters]
    vgg += [bases.dense_grouping(*shape) for shape in ((8192, 1024, 512), (1024, 1024, 512), (1024, 10, 512))]
    assert sum(g.num_weights for g in vgg) == 14_022_016
    assert sum(g.num_groups for g in vgg) == 33_556
    lenet = [bases.conv_grouping((5, 5, *f), "kernelwise") for f in ((1, 20), (20, 50))]
    lenet += [bases.dense_grouping(800, 500, 400), bases.dense_grouping(500, 10, 500)]
    assert (sum(g.num_weights for g in lenet), sum(g.num_groups for g in lenet)) == (430_500, 2_030)
