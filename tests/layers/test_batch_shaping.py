import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_efficient import models
from keras_efficient.layers import BatchShaping, GatedConv2D
from keras_efficient.layers.batch_shaping import beta_cdf
from keras_efficient.layers.dynamic import openness


def value(tensor):
    return float(keras.ops.convert_to_numpy(tensor))


def test_distributions_with_a_formula():
    x = np.linspace(0, 1, 41)
    np.testing.assert_allclose(beta_cdf(x, 1, 1), x, atol=1e-9)
    np.testing.assert_allclose(beta_cdf(x, 2, 2), 3 * x**2 - 2 * x**3, atol=1e-9)
    np.testing.assert_allclose(beta_cdf(x, 0.5, 0.5), 2 / np.pi * np.arcsin(np.sqrt(x)), atol=1e-6)
    np.testing.assert_allclose(beta_cdf(x, 0.3, 1), x**0.3, atol=1e-6)
    np.testing.assert_allclose(beta_cdf(x, 1, 5), 1 - (1 - x) ** 5, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 8), st.floats(0.05, 8))
def test_distributions_are_some(alpha, beta):
    x = np.linspace(0, 1, 33)
    values = beta_cdf(x, alpha, beta)
    assert values[0] == 0
    assert values[-1] == pytest.approx(1)
    assert (np.diff(values) >= -1e-9).all()
    np.testing.assert_allclose(values, 1 - beta_cdf(1 - x, beta, alpha), atol=1e-9)


def test_by_hand():
    # Uniform prior, F(x) = x. Three inputs, ranks 1/4, 2/4, 3/4; sorted 0.25, 0.5, 1 and 0, 0, 0.
    x = np.asarray([[0.5, 0.0], [0.25, 0.0], [1.0, 0.0]], "float32")
    expected = (0 + 0 + 0.25**2 + 0.25**2 + 0.5**2 + 0.75**2) / 6
    assert value(BatchShaping(1, 1, strength=2.0)(x)) == pytest.approx(2 * expected, rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.3, 3), st.floats(0.3, 3))
def test_least_for_draws_of_the_prior_whatever_their_order(seed, alpha, beta):
    random = np.random.default_rng(seed)
    prior = BatchShaping(alpha, beta, strength=1.0)
    drawn = random.beta(alpha, beta, (256, 4)).astype("float32")
    assert value(prior(drawn)) < 0.02
    assert value(prior(random.permuted(drawn, axis=0))) == pytest.approx(value(prior(drawn)), abs=1e-6)
    for constant in (0.0, 0.5, 1.0):
        assert value(prior(np.full((256, 4), constant, "float32"))) > 0.08  # 1 / 12 for the best constant there is


@pytest.mark.parametrize("gate", ["relu1", "binary_concrete"])
def test_openness(gate):
    values = np.asarray([[-2.0, 0.0, 0.4, 3.0]], "float32")
    expected = [[0, 0.5, 0.9, 1]] if gate == "relu1" else 1 / (1 + np.exp(-values))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(openness(values, gate)), expected, rtol=1e-6)


@pytest.mark.parametrize("gate", ["relu1", "binary_concrete"])
def test_gates_that_are_all_open_come_to_tell_inputs_apart(gate):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 1, 1, 2)).astype("float32")
    inputs = keras.Input((1, 1, 2))
    layer = GatedConv2D(3, 1, gate=gate, return_gate=True, gate_regularizer=BatchShaping(0.6, 0.6, 10.0))
    model = keras.Model(inputs, layer(inputs)[1])
    layer.gate_bias.assign(np.full(3, 1.5 if gate == "relu1" else 4.0))
    assert models.gate_statistics(model, x)[0].constant == 1
    optimizer = keras.optimizers.SGD(0.05) if gate == "relu1" else keras.optimizers.Adam(0.1)
    model.compile(optimizer, lambda _, y: 0.0 * keras.ops.sum(y))
    model.fit(np.tile(x, (100, 1, 1, 1)), np.zeros((6400, 3)), batch_size=64, shuffle=False, verbose=0)
    found = models.gate_statistics(model, x)[0]
    assert found.constant == 0
    assert found.open_rate == pytest.approx(0.5, abs=0.2)
    model(x[:8], training=False)
    assert not layer.losses


def test_configuration_and_bad_arguments(tmp_path):
    layer = GatedConv2D(3, 1, gate_regularizer=BatchShaping(0.7, 0.2, 3.0))
    copy = GatedConv2D.from_config(layer.get_config())
    assert copy.gate_regularizer.get_config() == {"alpha": 0.7, "beta": 0.2, "strength": 3.0}
    model = keras.Sequential([keras.Input((4, 4, 2)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].gate_regularizer.get_config() == layer.gate_regularizer.get_config()
    old = {key: value for key, value in layer.get_config().items() if key != "gate_regularizer"}
    assert GatedConv2D.from_config(old).gate_regularizer is None
    for arguments, name in [({"alpha": 0}, "alpha"), ({"beta": -1}, "beta"), ({"strength": float("nan")}, "strength")]:
        with pytest.raises(ValueError, match=f"`{name}`. Expected a number"):
            BatchShaping(**arguments)
