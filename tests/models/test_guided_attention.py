"""GuidedAttention: rewards by hand, what regions may and may not do, training."""

import keras
import numpy as np
import pytest

import keras_efficient
from keras_efficient.layers import GuidedCell
from keras_efficient.models import GuidedAttention
from keras_efficient.models.guidance import check_regions, first_visits, nearest_unvisited, rewards_to_go

IMAGES = np.random.default_rng(0).uniform(size=(6, 20, 20, 1)).astype("float32")
LABELS = np.arange(6) % 3
REGIONS = np.array([[[-0.5, -0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.4]]] * 6, "float32")


def numbers(tensor):
    return keras.ops.convert_to_numpy(tensor)


def network(glimpses=3, samples=2, **arguments):
    cell = GuidedCell(4, 1, units=8, glimpse_units=6, location_units=5, locator_units=7, context_size=5, seed=0)
    model = GuidedAttention(3, cell, glimpses, samples, **arguments)
    model.build((None, 20, 20, 1))
    return model


def compiled(model, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, **{"metrics": ["accuracy"], **options})
    return model


PATH = np.array([[[-0.5, -0.45], [0.65, 0.85], [-0.6, -0.5], [0.5, 0.6], [0.5, 0.5]]], "float32")


def test_only_the_first_visit_counts():
    first, visited = (numbers(found) for found in first_visits(PATH, REGIONS[:1], 1.0))
    # The second look is in reach of the second region across, 0.35 <= 0.4, and just down: 0.15 <= 0.2.
    np.testing.assert_array_equal(first, [[1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(visited[0], [[1, 0], [1, 1], [1, 1], [1, 1], [1, 1]])
    first, _ = first_visits(PATH, REGIONS[:1], 0.5)
    np.testing.assert_array_equal(numbers(first), [[1, 0, 0, 1, 0]])
    nothing = np.zeros((1, 2, 4), "float32")  # not annotated; the centre of the image is no region
    np.testing.assert_array_equal(numbers(first_visits(np.zeros((1, 2, 2), "float32"), nothing, 1.0)[0]), [[0, 0]])


def test_rewards_to_go():
    rewards = np.array([[1.0, 0.0, 2.0]], "float32")
    np.testing.assert_allclose(numbers(rewards_to_go(rewards, 1.0)), [[3, 2, 2]])
    np.testing.assert_allclose(numbers(rewards_to_go(rewards, 0.5)), [[1.5, 1, 2]])
    np.testing.assert_allclose(numbers(rewards_to_go(rewards, 0.0)), rewards)


def test_targets_of_supervision():
    _, visited = first_visits(PATH, REGIONS[:1], 0.5)
    targets, wanted = (numbers(found) for found in nearest_unvisited(PATH, REGIONS[:1], visited))
    np.testing.assert_allclose(targets[0, :4], [[-0.5, -0.5], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]])
    np.testing.assert_array_equal(wanted, [[1, 1, 1, 1, 0]])  # after the fourth look both are found


def rewarded(model, labels, regions, locations, logits):
    found = {name: keras.ops.convert_to_tensor(logits) for name in model.exit_names}
    learning = {"baselines": keras.ops.zeros((len(logits), 3)), "locations": keras.ops.convert_to_tensor(locations)}
    return numbers(model.returns({"label": labels, "regions": regions}, found, learning))


def test_returns_mix_regions_and_label_and_leave_out_what_is_not_annotated():
    model = compiled(network(samples=1), guidance=(0.75, 0.75), reach=(1.0, 1.0))
    locations = np.array([[[-0.5, -0.5], [-0.5, -0.5], [0.5, 0.5]]] * 3, "float32")
    regions = REGIONS[:3].copy()
    regions[2] = 0
    logits = np.eye(3, dtype="float32")
    found = rewarded(model, np.array([0, 2, 2]), regions, locations, logits)
    right = np.array([1, 0, 1])
    wanted = [0.75 * np.array([2, 1, 1]) + 0.25 * right[0], 0.75 * np.array([2, 1, 1]), [1, 1, 1]]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_guidance_falls_with_the_steps():
    options = {"run_eagerly": True, "jit_compile": False, "metrics": None}
    model = compiled(network(), guidance=(1.0, 0.2), reach=(1.5, 0.5), guidance_steps=2, **options)
    values = []
    for _ in range(4):
        values.append((float(model._now(model.guidance)), float(model._now(model.reach))))
        model.train_on_batch(IMAGES, {"label": LABELS, "regions": REGIONS})
        if keras.backend.backend() == "jax":
            model.jax_state_sync()
    np.testing.assert_allclose(values, [(1, 1.5), (0.6, 1), (0.2, 0.5), (0.2, 0.5)], atol=1e-6)


def moved(**options):
    """Which layers one step moved, the locator's recurrent layer as `locator`."""
    model = compiled(network(), metrics=None, run_eagerly=True, jit_compile=False, **options)
    before = {weight.path: numbers(weight.value).copy() for weight in model.trainable_variables}
    model.train_on_batch(IMAGES, {"label": LABELS, "regions": REGIONS})
    paths = [w.path for w in model.trainable_variables if not np.array_equal(numbers(w.value), before[w.path])]
    return {part[-2] if part[-2] != "product" else part[-3] for part in (path.split("/") for path in paths)}


LOOKING = {"locator", "location_hidden", "location_mean", "context", "context_state"}
SEEING = {"what", "where", "joined", "core", "classifier"}


@pytest.mark.parametrize("guided_by", ["reward", "supervised"])
def test_where_gradients_go(guided_by):
    both = LOOKING | SEEING | {"baseline"}
    assert moved(guided_by=guided_by) == both
    nothing_seen = {"loss_weights": [0.0, 0.0, 0.0], "guided_by": guided_by}
    assert moved(**nothing_seen) == LOOKING | {"baseline"}
    assert moved(policy_weight=0.0) == SEEING | {"baseline"}


def test_regions_never_enter_the_network():
    model = compiled(network(), run_eagerly=True, jit_compile=False)
    y = {"label": LABELS, "regions": REGIONS}
    first = model.evaluate(IMAGES, y, verbose=0, return_dict=True)
    other = model.evaluate(IMAGES, {**y, "regions": REGIONS[:, ::-1] * 0.5}, verbose=0, return_dict=True)
    plain = model.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    assert first["loss"] == other["loss"] == plain["loss"]


def test_regions_found_are_those_of_training():
    model = compiled(network())
    y = {"label": LABELS, "regions": REGIONS}
    history = model.fit(IMAGES, y, 3, 1, 0, validation_data=(IMAGES, y)).history
    assert 0 <= history["regions_found"][0] <= 1
    assert "val_accuracy" in history or any(name.startswith("val_") for name in history)
    assert "val_regions_found" not in history
    assert "regions_found" not in model.evaluate(IMAGES, y, verbose=0, return_dict=True)
    assert "regions_found" not in model.fit(IMAGES, LABELS, verbose=0).history


def test_it_learns_to_find_regions():
    """Two bright squares anywhere: guided by rewards for them, the looks go there."""
    keras.utils.set_random_seed(0)
    data = np.zeros((512, 32, 32, 1), "float32")
    rng = np.random.default_rng(0)
    boxes = np.zeros((512, 2, 4))
    for n in range(512):
        for r, (top, left) in enumerate(zip(rng.permutation([0, 20]), rng.integers(0, 24, 2), strict=True)):
            data[n, top : top + 8, left : left + 8] = 1
            boxes[n, r] = top, left, top + 8, left + 8
    regions = keras_efficient.datasets.regions_of(boxes, (32, 32))
    cell = GuidedCell(8, 1, units=16, locator_units=32, context_size=8, context_units=32, location_gain=1.0, seed=0)
    model = GuidedAttention(2, cell, num_glimpses=2, samples=4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss, normalize_advantages=True, guidance=(1, 1), reach=(1, 1))
    y = {"label": np.zeros(512, "int64"), "regions": regions}
    before = coverage(model, data, regions)
    history = model.fit(data, y, batch_size=64, epochs=15, verbose=0).history
    assert coverage(model, data, regions) > before + 0.3
    assert history["regions_found"][-1] > history["regions_found"][0] + 0.1


def coverage(model, images, regions):
    _, locations = model.predict_path(images, verbose=0)
    return float(numbers(first_visits(locations, regions, 1.0)[1])[:, -1].mean())


def test_saved_and_loaded(tmp_path):
    options = {"guided_by": "supervised", "guidance_steps": 7, "discount": 0.5}
    model = compiled(network(), run_eagerly=True, jit_compile=False, **options)
    model.train_on_batch(IMAGES, {"label": LABELS, "regions": REGIONS})
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name, values in model(IMAGES).items():
        np.testing.assert_array_equal(numbers(loaded(IMAGES)[name]), numbers(values))
    assert (loaded.guided_by, loaded.guidance_steps, loaded.discount) == ("supervised", 7, 0.5)


def test_public_name():
    assert keras_efficient.layers.GuidedAttention is GuidedAttention
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        keras_efficient.layers.Nothing  # noqa: B018


def test_bad_input():
    with pytest.raises(ValueError, match="`cell`. Expected a `GuidedCell`"):
        GuidedAttention(3, keras_efficient.layers.GlimpseCell(4))
    for options, sentence in [
        ({"guidance": (1.5, 0.2)}, r"`guidance`. Expected two numbers in \[0, 1\]"),
        ({"reach": (1.0,)}, "`reach`. Expected two numbers of at least 0"),
        ({"guided_by": "hand"}, "`guided_by`. Expected 'reward' or 'supervised'"),
        ({"guidance_steps": 0}, "`guidance_steps`. Expected an integer of at least 1"),
        ({"discount": 2.0}, "`discount`. Expected 0 to 1"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            compiled(network(), **options)
    outside = REGIONS.copy()
    outside[3, 0, 0] = -0.9
    with pytest.raises(ValueError, match="Expected regions inside the image"):
        compiled(network()).fit(IMAGES, {"label": LABELS, "regions": outside}, verbose=0)
    with pytest.raises(ValueError, match=r"Expected \[images, regions, 4\]"):
        check_regions(REGIONS[0])
    with pytest.raises(ValueError, match="Expected regions inside the image"):
        check_regions(REGIONS * np.nan)
