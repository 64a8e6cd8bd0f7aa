import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_efficient.layers import GatedConv2D
from keras_efficient.layers.gates import (
    budget_open,
    concrete_gate,
    hard_gate,
    relu1,
    soft_gate,
    straight_through_mask,
    straight_through_open,
)

VALUES = np.asarray([-0.5, 0.0, 0.005, 0.02, 0.5, 1.0, 1.5], "float32")


def gradient(function, x):
    """d sum(function(x)) / dx on the backend of this run."""
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(lambda v: ops.sum(function(v)))(x))
    import tensorflow as tf

    v = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(v)
        y = ops.sum(function(v))
    return tape.gradient(y, v).numpy()


def test_values():
    np.testing.assert_array_equal(relu1(VALUES), np.asarray([0, 0, 0.005, 0.02, 0.5, 1, 1], "float32"))
    np.testing.assert_array_equal(hard_gate(VALUES, 0.01), np.asarray([0, 0, 0, 0.02, 0.5, 1, 1], "float32"))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-4, 4, width=32), min_size=8, max_size=8), st.floats(0, 0.5), st.floats(0, 1))
def test_soft_and_hard_gates_are_the_same_numbers(values, threshold, leak):
    x = np.asarray(values, "float32")
    np.testing.assert_array_equal(soft_gate(x, threshold, leak), hard_gate(x, threshold))
    opened = np.asarray(ops.convert_to_numpy(budget_open(x, threshold, ops.ones(()))))
    np.testing.assert_array_equal(opened, ops.convert_to_numpy(hard_gate(x, threshold)) > 0)


def test_gradient_of_the_task():
    found = gradient(lambda v: soft_gate(v, 0.01, 0.1), VALUES)
    np.testing.assert_allclose(found, [0.1, 0.1, 0.1, 1, 1, 1, 0.1], rtol=1e-6)


@pytest.mark.parametrize(("coefficient", "expected"), [(2.0, [0, 0, 0, 1, 1, 1, 1]), (-2.0, [1, 1, 1, 1, 1, 0, 0])])
def test_a_budget_moves_every_gate_back_and_none_further_away(coefficient, expected):
    found = gradient(lambda v: budget_open(v, 0.01, ops.convert_to_tensor(coefficient)), VALUES)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("coefficient", "expected"), [(2.0, [0, 0, 1, 1, 1]), (-2.0, [1, 1, 1, 0, 0])])
def test_a_budget_of_the_reader_moves_gates_likewise(coefficient, expected):
    gates = np.asarray([0, 0, 0.5, 1, 1], "float32")
    found = gradient(lambda v: straight_through_open(v, ops.convert_to_tensor(coefficient)), gates)
    np.testing.assert_array_equal(found, expected)
    opened = ops.convert_to_numpy(straight_through_open(gates, ops.convert_to_tensor(coefficient)))
    np.testing.assert_array_equal(opened, [0, 0, 1, 1, 1])


def test_mask_passes_gradients_of_what_is_shut():
    mask = np.asarray([0, 1, 0, 1, 1, 0, 1], "float32")
    np.testing.assert_array_equal(straight_through_mask(VALUES, mask), VALUES * mask)
    np.testing.assert_array_equal(gradient(lambda v: straight_through_mask(v, mask), VALUES), np.ones(7))


def test_concrete_gates_decide_hard_and_learn_soft():
    noise, temperature = np.float32(0.25), 0.5
    x = np.asarray([-2.0, -0.3, -0.2, 0.0, 1.0], "float32")
    np.testing.assert_array_equal(concrete_gate(x, noise, temperature), [0, 0, 1, 1, 1])
    soft = 1 / (1 + np.exp(-(x + noise) / temperature))
    expected = soft * (1 - soft) / temperature
    np.testing.assert_allclose(gradient(lambda v: concrete_gate(v, noise, temperature), x), expected, rtol=1e-5)


def test_concrete_gates_are_open_as_often_as_their_probability():
    keras.utils.set_random_seed(0)
    layer = GatedConv2D(4000, 1, gate="binary_concrete", gate_bias_initializer=keras.initializers.Constant(-0.5))
    x = np.zeros((5, 2, 2, 1), "float32")
    layer.build(x.shape)
    gate, opened = layer.gate_values(x, training=True)
    np.testing.assert_array_equal(gate, opened)
    assert set(np.unique(ops.convert_to_numpy(gate))) == {0, 1}
    # 20,000 draws of probability sigmoid(-0.5): four standard errors are 0.014.
    assert float(ops.mean(gate)) == pytest.approx(1 / (1 + np.exp(0.5)), abs=0.014)
    shut, _ = layer.gate_values(x, training=False)
    assert float(ops.max(shut)) == 0
