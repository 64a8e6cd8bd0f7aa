"""RecurrentAttention: the losses by NumPy, where gradients go, training, stopping early, saving, bad input."""

import keras
import numpy as np
import pytest

from keras_efficient import cost, ops, policies
from keras_efficient.layers import GlimpseCell
from keras_efficient.models import RecurrentAttention

IMAGES = np.random.default_rng(0).uniform(size=(8, 14, 14, 1)).astype("float32")
LABELS = np.arange(8) % 3


def numbers(tensor):
    return keras.ops.convert_to_numpy(tensor)


def network(glimpses=3, samples=1, image_shape=(14, 14, 1), **arguments):
    cell = GlimpseCell(4, 2, units=8, glimpse_units=6, location_units=5, seed=0)
    model = RecurrentAttention(3, cell, glimpses, samples, **arguments)
    model.build((None, *image_shape))
    return model


def compiled(model, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, **{"metrics": ["accuracy"], **options})
    return model


def cross_entropy(logits, labels):
    shifted = logits - logits.max(-1, keepdims=True)
    return np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(len(labels)), labels]


@pytest.mark.parametrize("normalize", [False, True])
def test_the_hybrid_loss(normalize):
    rng = np.random.default_rng(0)
    options = {"policy_weight": 0.5, "normalize_advantages": normalize, "location_decay": 0.1}
    model = compiled(network(samples=2), **options)
    logits = {f"glimpse_{k}": rng.normal(size=(16, 3)).astype("float32") for k in (1, 2, 3)}
    learning = {name: rng.normal(size=(16, 2)).astype("float32") for name in ("log_probabilities", "baselines")}
    raw = rng.normal(size=(16, 2, 2)).astype("float32")
    both = {**logits, **learning, "means": np.tanh(raw), "raw_means": raw, "locations": np.zeros((16, 3, 2))}
    both = keras.tree.map_structure(keras.ops.convert_to_tensor, both)
    found = float(model.compute_loss(None, keras.ops.convert_to_tensor(LABELS), both))
    labels = np.repeat(LABELS, 2)  # both samples of an image have its label
    reward = (logits["glimpse_3"].argmax(-1) == labels).astype("float32")[:, None]
    advantage = reward - learning["baselines"]
    if normalize:
        advantage = advantage / np.sqrt((advantage**2).mean())
    wanted = cross_entropy(logits["glimpse_3"], labels).mean()
    wanted += -0.5 * (advantage * learning["log_probabilities"]).sum(1).mean()
    wanted += 0.5 * 0.1 * (raw**2).sum((1, 2)).mean()
    wanted += ((reward - learning["baselines"]) ** 2).mean()
    assert found == pytest.approx(wanted, rel=1e-4)


def test_every_answer_may_be_rewarded():
    model = compiled(network(glimpses=4), reward="every")
    right = np.array([[1, 0, 1, 0], [0, 1, 1, 1]])  # after each glimpse
    logits = {f"glimpse_{k + 1}": np.eye(3)[[0 if r else 1 for r in right[:, k]]].astype("float32") for k in range(4)}
    found = model.returns(np.array([0, 0]), logits, {"baselines": keras.ops.zeros((2, 3))})
    np.testing.assert_allclose(numbers(found), [[1 / 3, 1 / 2, 0], [1, 1, 1]], rtol=1e-6)


def after_training(**options):
    """Which layers one step of training moved."""
    model = compiled(network(), metrics=None, run_eagerly=True, jit_compile=False, **options)
    before = {weight.path: numbers(weight.value).copy() for weight in model.trainable_variables}
    model.train_on_batch(IMAGES, LABELS)
    moved = {w.path for w in model.trainable_variables if not np.array_equal(numbers(w.value), before[w.path])}
    return {path.split("/")[-2] for path in moved}


LOOKING = {"location_hidden", "location_mean"}
SEEING = {"what", "where", "joined", "product", "classifier"}


def test_where_gradients_go():
    assert after_training() == LOOKING | SEEING | {"baseline"}
    assert after_training(policy_weight=0.0) == SEEING | {"baseline"}  # cross-entropy does not teach where to look
    assert after_training(loss_weights=[0.0, 0.0, 0.0]) == LOOKING | {"baseline"}  # and the reward not what is seen


def test_it_learns_where_to_look():
    """The class is the brightness of a square far from the centre: only who looks there can tell."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x, y = np.zeros((256, 16, 16, 1), "float32"), rng.integers(0, 2, 256)
    x[:, 10:14, 10:14] = (0.5 + 0.5 * y)[:, None, None, None]
    x[:, 6:10, 6:10] = 0.2  # something to see at the start
    cell = GlimpseCell(4, units=16, glimpse_units=16, location_units=16, sigma=0.3, location_gain=1.0, seed=0)
    model = RecurrentAttention(2, cell, num_glimpses=3, samples=4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, normalize_advantages=True, location_decay=0.02)
    model.fit(x, y, batch_size=64, epochs=12, verbose=0)
    assert (model.predict(x, verbose=0).argmax(-1) == y).mean() > 0.95


def test_fit_logs_and_outputs():
    model = compiled(network(samples=2), loss_weights=[1.0, 1.0, 1.0])
    history = model.fit(
        IMAGES, LABELS, epochs=1, batch_size=4, verbose=0, validation_data=(IMAGES, LABELS), sample_weight=np.ones(8)
    ).history
    assert {"glimpse_1_accuracy", "glimpse_3_accuracy", "val_glimpse_3_accuracy", "loss", "val_loss"} <= set(history)
    logits, locations = model.predict_path(IMAGES, verbose=0)
    assert logits.shape == (8, 3, 3)
    assert locations.shape == (8, 3, 2)
    np.testing.assert_array_equal(locations[:, 0], 0)
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), logits[:, -1], atol=1e-5)
    every = model.predict_all(IMAGES, verbose=0)
    assert list(every) == ["glimpse_1", "glimpse_2", "glimpse_3"]
    np.testing.assert_allclose(every["glimpse_2"], logits[:, 1], atol=1e-5)
    with ops.skipping():
        alone = model(IMAGES[:1])
    np.testing.assert_allclose(numbers(alone["output"]), logits[:1, -1], atol=1e-5)
    np.testing.assert_allclose(numbers(alone["locations"]), locations[:1], atol=1e-5)
    whole = np.round(255 * IMAGES).astype("uint8")
    np.testing.assert_allclose(model.predict(whole, verbose=0), logits[:, -1], atol=0.05)


def test_it_costs_what_the_glimpses_cost():
    small, large = network(), network(image_shape=(100, 100, 1))
    once = 32 * 6 + 2 * 6 + 12 * 8 + 16 * 8 + 8 * 5 + 5 * 2 + 8 * 3
    assert cost.profile(small).macs == cost.profile(large).macs == 3 * once
    np.testing.assert_array_equal(small.exit_costs(), [once, 2 * once, 3 * once])


def test_a_policy_stops_early():
    model = network()
    data = policies.ExitData(**model.exit_data(IMAGES, LABELS))
    np.testing.assert_allclose(data.costs, [1 / 3, 2 / 3, 1])
    sureness = data.features[:, 0, 0]
    model.policy = policies.ThresholdPolicy(float(np.median(sureness)))
    logits, taken = model.predict_exits(IMAGES, verbose=0)
    assert 0 < (taken == 0).mean() < 1
    every = model.predict_all(IMAGES, verbose=0)
    for n in range(8):
        np.testing.assert_allclose(logits[n], every[f"glimpse_{taken[n] + 1}"][n], atol=1e-5)
        with ops.skipping():
            alone = model(IMAGES[n : n + 1])
        assert int(numbers(alone["exit_index"])[0]) == taken[n]
        np.testing.assert_allclose(numbers(alone["output"])[0], logits[n], atol=1e-5)
    expected = cost.profile(model, IMAGES).expected_macs
    assert expected == pytest.approx(model.exit_costs()[taken].mean(), rel=1e-5)
    with pytest.raises(ValueError, match="Expected a policy for the network's 3 exits"):
        model.policy = policies.ThresholdPolicy([0.5] * 4)


def test_steps_by_hand_are_the_network():
    model = network()
    step = model.step_model()
    states = {name: numbers(state) for name, state in model.start_model()(IMAGES).items()}
    logits, locations = model.predict_path(IMAGES, verbose=0)
    for k in range(3):
        np.testing.assert_allclose(states["location"], locations[:, k], atol=1e-5)
        outputs = step({"image": IMAGES, **states})
        np.testing.assert_allclose(numbers(outputs["output"]), logits[:, k], atol=1e-5)
        states = {name: numbers(outputs[name]) for name in states}
    data = model.step_data(IMAGES)
    assert {name: array.shape for name, array in data.items()} == {
        "image": (24, 14, 14, 1),
        "hidden": (24, 8),
        "location": (24, 2),
    }
    np.testing.assert_allclose(data["location"].reshape(3, 8, 2), locations.transpose(1, 0, 2), atol=1e-5)


def test_saved_and_loaded_bit_by_bit(tmp_path):
    options = {"policy_weight": 0.3, "loss_weights": [0.1, 0.2, 0.7], "run_eagerly": True, "jit_compile": False}
    model = compiled(network(samples=2, dropout=0.1), **options)
    model.train_on_batch(IMAGES, LABELS)
    model.policy = policies.ThresholdPolicy(0.5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name, values in model(IMAGES).items():
        np.testing.assert_array_equal(numbers(loaded(IMAGES)[name]), numbers(values))
    assert loaded.cell.get_config() == model.cell.get_config()
    assert (loaded.samples, loaded.dropout, loaded.policy_weight) == (2, 0.1, 0.3)
    loaded.train_on_batch(IMAGES, LABELS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"glimpses": 1}, "`num_glimpses`. Expected an integer of at least 2. Received: 1"),
        ({"samples": 0}, "`samples`. Expected an integer of at least 1. Received: 0"),
        ({"dropout": 1.0}, "`dropout`. Expected a number in [0, 1). Received: 1.0"),
        ({"image_dtype": "int8"}, "`image_dtype`. Expected one of ('float32', 'uint8'). Received: 'int8'"),
    ],
)
def test_bad_arguments(arguments, sentence):
    with pytest.raises(ValueError) as error:
        network(**arguments)
    assert sentence in str(error.value)


def test_bad_input():
    with pytest.raises(ValueError, match="`cell`. Expected a `GlimpseCell`"):
        RecurrentAttention(3, keras.layers.LSTMCell(4))
    with pytest.raises(ValueError, match="`policy_weight`. Expected a number of at least 0"):
        compiled(network(), policy_weight=-1.0)
    with pytest.raises(ValueError, match="`reward`. Expected 'last' or 'every'"):
        compiled(network(), reward="first")
    with pytest.raises(ValueError, match="`loss_weights`. Expected 3 numbers"):
        compiled(network(), loss_weights=[1.0])
    with pytest.raises(ValueError, match=r"Expected \[batch, height, width, 1\]"):
        network()(np.zeros((2, 14, 14, 3), "float32"))
    unbuilt = RecurrentAttention(3, GlimpseCell(4))
    with pytest.raises(ValueError, match="not built yet"):
        unbuilt.step_model()
