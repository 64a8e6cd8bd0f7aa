"""MultiTask: one task, all shared and all private are what they should be; labels; export; a task added later."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient import cost
from keras_efficient.models import MultiTask

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(autouse=True)
def seeded():
    """With unlucky weights no unit of the small networks is ever above 0, and nothing trains."""
    keras.utils.set_random_seed(0)


def to_numpy(x):
    return ops.convert_to_numpy(x)


def backbone(normalized=True, flat=False):
    x = inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=not normalized, name="first")(x)
    if normalized:
        x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.Add(name="add")([keras.layers.Conv2D(4, 3, padding="same", name="second")(x), x])
    x = keras.layers.Flatten(name="flat")(x) if flat else keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(6, activation="relu", name="dense")(x))


def data(count=24):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 8, 8, 1)).astype("float32")
    return x, {"a": rng.integers(0, 3, count), "b": rng.integers(0, 4, count)}


def two_tasks(**options):
    model = MultiTask(
        backbone(options.pop("normalized", True), options.pop("flat", False)), {"a": 3, "b": 4}, **options
    )
    model.compile(keras.optimizers.SGD(0.1), LOSS, jit_compile=False)
    return model


def mixed(model):
    """Some filters shared, some not."""
    rng = np.random.default_rng(1)
    for layer in model.sharing_layers:
        kernels, biases = layer.get_sources()
        noise = rng.normal(size=kernels.shape).astype("float32")
        layer.assign_sources(kernels + 0.1 * noise, None if biases is None else biases + 0.1)
        own = np.arange(1, len(model.tasks) + 1)[:, None]
        layer.set_sources(np.where(rng.uniform(size=(len(model.tasks), layer.slots)) < 0.5, own, 0))
    return model


def assert_same_weights(first, second, atol=2e-6):
    assert [w.shape for w in first.weights] == [w.shape for w in second.weights]
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


@pytest.mark.parametrize("tasks", [{"a": 3}, {"a": 3, "b": 4}])
def test_private_networks_train_like_plain_ones(tasks):
    """One task, and several that share nothing: a step of SGD changes each as it changes a plain network."""
    x, y = data()
    model = MultiTask(backbone(), tasks)
    model.compile(keras.optimizers.SGD(0.1), LOSS, jit_compile=False)
    model.share_nothing()
    plains = {task: model.export(task=task) for task in tasks}
    model.train_on_batch(x, {task: y[task] for task in tasks})
    for task, plain in plains.items():
        plain.compile(keras.optimizers.SGD(0.1), LOSS, jit_compile=False)
        plain.train_on_batch(x, y[task])
        assert_same_weights(model.export(task=task), plain)


def test_labels_of_one_task_leave_private_networks_of_others_alone():
    """All that the other task learns stays as it is; only its moving statistics follow the images."""
    x, y = data()
    model = two_tasks()
    model.share_nothing()
    before = {task: model.export(task=task) for task in y}
    model.train_on_batch(x, {"a": y["a"]})
    after = {task: model.export(task=task) for task in y}
    learned = [(v.path, to_numpy(v), to_numpy(w)) for v, w in _pairs(before["b"], after["b"], "trainable_variables")]
    assert len(learned) == 2 + 2 + 2 + 2 + 1  # second, dense, head: kernel and bias; norm: scale, offset; first: kernel
    for path, old, new in learned:
        np.testing.assert_array_equal(old, new, err_msg=path)
    for v, w in _pairs(before["b"], after["b"], "non_trainable_variables"):
        assert not np.array_equal(to_numpy(v), to_numpy(w)), v.path
    for v, w in _pairs(before["a"], after["a"], "trainable_variables"):
        assert np.abs(to_numpy(v) - to_numpy(w)).max() > 0, v.path


def _pairs(first, second, kind):
    return list(zip(getattr(first, kind), getattr(second, kind), strict=True))


@pytest.mark.parametrize("normalized", [False, True])
def test_all_shared_is_hard_sharing(normalized):
    """With normalisations for all tasks, too: equal images have equal statistics, so each step is the same."""
    x, y = data()
    model = two_tasks(normalized=normalized, normalization="shared")
    model.share_all()
    trunk = backbone(normalized=normalized)
    heads = [keras.layers.Dense(3, name="head_a"), keras.layers.Dense(4, name="head_b")]
    hard = keras.Model(trunk.input, {"a": heads[0](trunk.output), "b": heads[1](trunk.output)})
    copies = {task: model.export(task=task) for task in y}
    trunk.set_weights(copies["a"].get_weights()[:-2])
    for task, head in zip(y, heads, strict=True):
        head.set_weights(copies[task].get_weights()[-2:])
    hard.compile(keras.optimizers.SGD(0.1), {"a": LOSS, "b": LOSS}, jit_compile=False)
    private = [layer.get_sources()[0][1:] for layer in model.sharing_layers]
    for _ in range(2):
        model.train_on_batch(x, y)
        hard.train_on_batch(x, y)
    for training in (False, True):
        outputs, expected = model(x, training=training), hard(x, training=training)
        for task in y:
            np.testing.assert_allclose(to_numpy(outputs[task]), to_numpy(expected[task]), atol=1e-5)
    for layer, kernels in zip(model.sharing_layers, private, strict=True):
        np.testing.assert_array_equal(layer.get_sources()[0][1:], kernels)
    for old, new in zip(model.export(task="b").get_weights()[:-2], trunk.get_weights(), strict=True):
        np.testing.assert_allclose(old, new, atol=1e-5)
    assert model.share_rate() == 1.0


def test_all_shared_on_own_images_normalises_over_the_images_of_all_tasks():
    """One image per task in a row: the statistics are those of hard sharing that sees all images in one batch."""
    x, y = data()
    model = two_tasks(normalization="shared")
    model.share_all()
    trunk = keras.models.clone_model(backbone())
    trunk.set_weights(model.export(task="a").get_weights()[:-2])
    rows = np.stack([x, x[::-1] + 0.5], axis=1)
    found = model(rows, training=True)
    features = to_numpy(trunk(rows.reshape(-1, *x.shape[1:]), training=True)).reshape(len(x), 2, -1)
    for t, task in enumerate(y):
        head = model.heads[t]
        expected = features[:, t] @ to_numpy(head.kernel) + to_numpy(head.bias)
        np.testing.assert_allclose(to_numpy(found[task]), expected, atol=1e-5)
    moved = model.export(task="b").get_layer("norm").get_weights()
    for ours, expected in zip(moved, trunk.get_layer("norm").get_weights(), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_in_the_phase_shared_normalisations_of_tasks_act_as_one():
    """Like one for all tasks, step by step; afterwards each goes its own way from there."""
    x, y = data()
    rows = np.stack([x, 2 * x[::-1] + 0.5], axis=1)
    one, each = two_tasks(normalization="shared"), two_tasks(normalization="task")
    each.set_phase("shared")
    one.share_all()
    for old, new in zip(one.heads + one.sharing_layers, each.heads + each.sharing_layers, strict=True):
        new.set_weights(old.get_weights())
    each.set_phase("shared")
    for _ in range(2):
        one.train_on_batch(rows, y)
        each.train_on_batch(rows, y)
    before = {task: to_numpy(each(x, task=task)) for task in y}
    for task in y:
        np.testing.assert_allclose(before[task], to_numpy(one(x, task=task)), atol=1e-5)
        for ours, theirs in zip(each.export(task=task).weights, one.export(task=task).weights, strict=True):
            np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), atol=1e-5)
    each.set_phase("search")
    for task in y:
        np.testing.assert_array_equal(to_numpy(each(x, task=task)), before[task])
    each.set_phase("hard")
    each.train_on_batch(rows, y)
    norms = [each.export(task=task).get_layer("norm").get_weights() for task in y]
    for ours, theirs in zip(*norms, strict=True):
        assert np.abs(ours - theirs).max() > 1e-4


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("normalization", ["task", "shared"])
def test_all_ways_to_run_agree(flat, normalization):
    x, _ = data()
    model = mixed(two_tasks(flat=flat, normalization=normalization))
    together, own = model(x), model(np.stack([x, x], axis=1))
    by_task = model({"a": x, "b": x})
    for task in "ab":
        expected = to_numpy(model(x, task=task))
        assert to_numpy(together[task]).shape == expected.shape
        for outputs in (together, own, by_task):
            np.testing.assert_allclose(to_numpy(outputs[task]), expected, atol=1e-5)
        plain = model.export(task=task)
        assert {type(layer).__module__.split(".")[0] for layer in plain.layers} == {"keras"}
        np.testing.assert_allclose(to_numpy(plain(x)), expected, atol=1e-5)
        assert cost.profile(plain).macs == cost.profile(model.network(task)).macs


def test_missing_labels_do_not_count():
    x, y = data()
    some = {"a": np.where(np.arange(24) < 6, y["a"], -1), "b": np.full(24, -1)}
    first, second = two_tasks(normalized=False), two_tasks(normalized=False)
    second.set_weights(first.get_weights())
    first.train_on_batch(x, some)
    second.train_on_batch(x[:6], {"a": y["a"][:6]})
    assert_same_weights(first, second)
    first.compile(keras.optimizers.SGD(0.1), LOSS, metrics=["accuracy"], jit_compile=False)
    found = first.evaluate(x, some, verbose=0, return_dict=True)
    logits = to_numpy(first(x, task="a"))
    assert found["a_accuracy"] == pytest.approx((logits.argmax(axis=1)[:6] == y["a"][:6]).mean(), abs=1e-6)


def test_a_batch_without_any_label_adds_no_gradient():
    x, y = data(32)
    model = two_tasks(normalized=False)
    labels = {"a": np.where(np.arange(32) < 16, y["a"], -1)}
    one, other = model.get_weights(), two_tasks(normalized=False)
    other.set_weights(one)
    model.fit(x, labels, batch_size=16, shuffle=False, epochs=1, verbose=0)  # the second batch has none
    other.fit(x[:16], {"a": y["a"][:16]}, batch_size=16, shuffle=False, epochs=1, verbose=0)
    assert_same_weights(model, other)


def test_regression_heads_take_nan_for_missing():
    x, _ = data(16)
    model = MultiTask(backbone(), {"size": keras.layers.Dense(1), "place": keras.layers.Dense(2)})
    model.compile("sgd", "mse", jit_compile=False)
    y = {"size": np.where(np.arange(16) % 2, np.nan, -1.0)[:, None], "place": np.zeros((16, 2))}
    history = model.fit(x, y, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())


def test_saving(tmp_path):
    x, _ = data()
    model = mixed(two_tasks())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for task, output in model(x).items():
        np.testing.assert_array_equal(to_numpy(loaded(x)[task]), to_numpy(output))
    assert loaded.stored_parameters() == model.stored_parameters()


def test_stored_parameters_by_hand():
    model = two_tasks()
    model.share_all()
    per_filter = [9, 9 * 4 + 1, 4 + 1]
    heads_and_norms = 2 * 4 * 4 + (6 * 3 + 3) + (6 * 4 + 4)
    assert model.stored_parameters() == sum(n * f for n, f in zip((4, 4, 6), per_filter, strict=True)) + heads_and_norms
    sources = np.array([[0, 1, 0, 0], [0, 0, 0, 0]])
    model.sharing_layers[1].set_sources(sources)
    total = sum(n * f for n, f in zip((4, 5, 6), per_filter, strict=True))
    assert model.stored_parameters() == total + heads_and_norms
    assert model.share_rate() == pytest.approx(1 - 37 / (4 * 9 + 4 * 37 + 6 * 5))


@pytest.mark.parametrize(("sharing", "normalization"), [("pool", "task"), ("source", "shared")])
def test_a_task_added_later_leaves_the_others_alone(sharing, normalization, tmp_path):
    x, y = data()
    model = two_tasks(sharing=sharing, normalization=normalization)
    model.fit(x, y, epochs=1, verbose=0)
    for layer in model.sharing_layers:
        layer.set_sources(np.repeat([[0], [1 if sharing == "source" else 2]], layer.slots, axis=1))
    before = {task: to_numpy(model(x, task=task)) for task in "ab"}
    more = model.with_task("c", 2)
    more.compile(keras.optimizers.AdamW(0.05, weight_decay=0.1), LOSS, jit_compile=False)
    more.set_phase("search")
    first = to_numpy(more(x, task="c"))
    for task in "ab":
        np.testing.assert_array_equal(to_numpy(more(x, task=task)), before[task])
    more.fit(x, {"c": np.arange(24) % 2}, epochs=2, verbose=0)
    for task in "ab":
        np.testing.assert_array_equal(to_numpy(more(x, task=task)), before[task])
    assert np.abs(to_numpy(more(x, task="c")) - first).max() > 1e-3
    more.save(tmp_path / "more.keras")
    loaded = keras.saving.load_model(tmp_path / "more.keras")
    np.testing.assert_array_equal(to_numpy(loaded(x, task="c")), to_numpy(more(x, task="c")))


def test_nested_and_sequential_backbones():
    inner = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(3, 3, name="inside"), keras.layers.ReLU()])
    outer = keras.Sequential([keras.Input((8, 8, 1)), inner, keras.layers.GlobalAveragePooling2D()])
    model = MultiTask(outer, {"a": 2, "b": 2})
    model.share_nothing()
    assert [layer.name for layer in model.sharing_layers] == ["inside"]
    x, _ = data(4)
    np.testing.assert_allclose(to_numpy(model(x)["b"]), to_numpy(model.export(task="b")(x)), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: MultiTask(keras.layers.Dense(2), {"a": 2}), "backbone"),
        (lambda: MultiTask(backbone(), {}), "heads"),
        (lambda: MultiTask(backbone(), {"a": 0}), "heads"),
        (lambda: MultiTask(backbone(), {"a (b)": 2}), "heads"),
        (lambda: MultiTask(backbone(), {"a": keras.Sequential([keras.Input((9,)), keras.layers.Dense(2)])}), "heads"),
        (lambda: MultiTask(backbone(), {"a": 2}, normalization="none"), "normalization"),
        (lambda: two_tasks().export(task="c"), "task"),
        (lambda: two_tasks().export(), "task"),
        (lambda: two_tasks().with_task("a", 2), "task"),
        (lambda: two_tasks().fit(data()[0], {"c": np.zeros(24)}), "y"),
        (lambda: two_tasks().fit(data()[0], np.zeros(24)), "y"),
        (lambda: two_tasks().fit(data()[0], {"a": np.full(24, -1)}), "y"),
        (lambda: two_tasks().fit(data()[0], {"a": np.full(24, 3)}), "y"),
        (lambda: two_tasks().compile("sgd", {"c": LOSS}), "loss"),
        (lambda: two_tasks()(np.zeros((2, 3, 8, 8, 1), "float32")), "inputs"),
        (lambda: two_tasks()({"a": np.zeros((2, 8, 8, 1)), "c": np.zeros((2, 8, 8, 1))}), "inputs"),
    ],
)
def test_bad_input(make, word):
    with pytest.raises(ValueError, match=f"`{word}`.*Received"):
        make()
