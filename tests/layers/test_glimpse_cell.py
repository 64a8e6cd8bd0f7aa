"""GlimpseCell and GuidedCell: formulas by NumPy, as cells of an RNN, where gradients go."""

import keras
import numpy as np
import pytest

from keras_efficient import cost
from keras_efficient.layers import GlimpseCell, GuidedCell
from keras_efficient.layers.glimpse_cell import gaussian_log_density

IMAGES = np.random.default_rng(0).uniform(size=(3, 12, 12, 1)).astype("float32")


def numbers(tensor):
    return keras.ops.convert_to_numpy(tensor)


def relu(x):
    return np.maximum(x, 0)


def dense(layer, x):
    kernel, bias = layer.get_weights()
    return x @ kernel + bias


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("core", ["simple", "lstm"])
def test_formulas(core):
    cell = GlimpseCell(4, 2, units=6, core=core, glimpse_units=5, location_units=7, location_gain=0.5)
    cell.build(IMAGES.shape)
    rng = np.random.default_rng(1)
    states = [rng.normal(size=(3, width)).astype("float32") for width in cell.state_size]
    states[-1] = np.clip(states[-1], -1, 1)
    seen = numbers(cell.sensor(IMAGES, states[-1])).reshape(3, -1)
    both = np.concatenate([relu(dense(cell.what, seen)), relu(dense(cell.where, states[-1]))], 1)
    product = dense(cell.recurrent.product, np.concatenate([states[0], relu(dense(cell.joined, both))], 1))
    if core == "simple":
        hidden, wanted = relu(product), [relu(product)]
    else:
        enter, forget, leave, new = np.split(product, 4, axis=1)
        memory = sigmoid(forget) * states[1] + sigmoid(enter) * np.tanh(new)
        hidden = sigmoid(leave) * np.tanh(memory)
        wanted = [hidden, memory]
    wanted.append(np.tanh(0.5 * dense(cell.location_mean, relu(dense(cell.location_hidden, hidden)))))
    output, following = cell(IMAGES, states)
    np.testing.assert_allclose(numbers(output), hidden, atol=1e-5)
    for found, value in zip(following, wanted, strict=True):
        np.testing.assert_allclose(numbers(found), value, atol=1e-5)


def test_the_forget_gate_starts_open():
    cell = GlimpseCell(4, units=3, core="lstm")
    cell.build(IMAGES.shape)
    np.testing.assert_array_equal(numbers(cell.recurrent.product.bias), [0] * 3 + [1] * 3 + [0] * 6)


@pytest.mark.parametrize("make", [GlimpseCell, GuidedCell])
def test_in_an_rnn_it_runs_like_steps_by_hand(make, tmp_path):
    video = np.random.default_rng(0).uniform(size=(2, 3, 12, 12, 1)).astype("float32")
    inputs = keras.Input((3, 12, 12, 1))
    cell = make(4, num_scales=1, units=5, core="lstm", seed=0)
    model = keras.Model(inputs, keras.layers.RNN(cell, return_sequences=True, name="rnn")(inputs))
    found = numbers(model(video))
    states = cell.get_initial_state(batch_size=2)
    for step in range(3):
        output, states = cell(video[:, step], states)
        np.testing.assert_allclose(found[:, step], numbers(output), atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(numbers(loaded(video)), found)
    assert loaded.get_layer("rnn").cell.get_config() == cell.get_config()


def test_cost_is_that_of_the_glimpses():
    def macs(size):
        inputs = keras.Input((2, size, size, 1))
        cell = GlimpseCell(4, units=6, glimpse_units=5, location_units=7)
        return cost.profile(keras.Model(inputs, keras.layers.RNN(cell)(inputs))).macs

    once = 16 * 5 + 2 * 5 + 10 * 6 + 12 * 6 + 6 * 7 + 7 * 2
    assert macs(12) == macs(40) == 2 * once


def test_noise_in_training_only_and_its_density():
    cell = GlimpseCell(4, units=6, sigma=0.3, seed=1)
    cell.build(IMAGES.shape)
    states = cell.get_initial_state(batch_size=3)
    still = cell.look(IMAGES, states)
    assert still.log_probability is None
    np.testing.assert_array_equal(numbers(still.states[-1]), numbers(still.mean))
    drawn = cell.look(IMAGES, states, training=True)
    assert np.abs(numbers(drawn.states[-1] - drawn.mean)).max() > 0.01
    at, mean = np.array([[0.2, 0.0]]), np.array([[0.5, 0.1]])
    wanted = -0.5 * (0.09 + 0.01) / 0.09 - 2 * np.log(0.3 * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(numbers(gaussian_log_density(at, mean, 0.3)), [wanted], rtol=1e-5)


def test_guided_cell_starts_from_a_thumbnail():
    cell = GuidedCell(4, 1, units=6, locator_units=5, context_size=3, context_units=4, location_units=7)
    cell.build(IMAGES.shape)
    thumbnail = numbers(cell.thumbnail(IMAGES))
    rows = np.array([1, 3, 5, 7, 9, 11])  # floor((k + 1/2) * 12 / 6)
    wanted = IMAGES[:, rows][:, :, rows].reshape(3, 3, 2, 3, 2, 1).mean((2, 4))
    np.testing.assert_allclose(thumbnail, wanted, atol=1e-6)
    states = cell.start(IMAGES, samples=2).states
    assert [tuple(state.shape) for state in states] == [(6, 6), (6, 5), (6, 2)]
    np.testing.assert_allclose(numbers(states[1])[0], numbers(states[1])[1])
    context = relu(dense(cell.context_layers[1], relu(dense(cell.context_layers[0], wanted.reshape(3, 9)))))
    np.testing.assert_allclose(numbers(states[1])[::2], context, atol=1e-5)
    assert np.abs(numbers(states[2])).max() > 0


def test_guided_cell_without_context_looks_at_the_centre():
    cell = GuidedCell(4, 1, units=6, context_size=None)
    cell.build(IMAGES.shape)
    assert not any(numbers(state).any() for state in cell.start(IMAGES).states)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"core": "gru"}, "`core`. Expected 'simple' or 'lstm'. Received: 'gru'"),
        ({"sigma": 0.0}, "`sigma`. Expected a finite number above 0. Received: 0.0"),
        ({"location_gain": float("nan")}, "`location_gain`. Expected a finite number above 0. Received: nan"),
        ({"units": 0}, "`units`. Expected an integer of at least 1. Received: 0"),
    ],
)
def test_bad_arguments(arguments, sentence):
    with pytest.raises(ValueError) as error:
        GlimpseCell(4, **arguments)
    assert sentence in str(error.value)


def test_images_of_unknown_size():
    with pytest.raises(ValueError, match="with known height, width and channels"):
        GlimpseCell(4).build((None, None, None, 1))
