"""Layers that share filters: special cases that are plain layers, decisions, what is stored."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_efficient import cost
from keras_efficient.layers import FilterSharingConv2D, FilterSharingDense, TaskBatchNormalization
from keras_efficient.layers.filter_sharing_decisions import filters_per_slot, sampled_share, sampled_source, share_rate


def to_numpy(x):
    return ops.convert_to_numpy(x)


def image(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def conv(num_tasks, **options):
    layer = FilterSharingConv2D(6, 3, padding="same", num_tasks=num_tasks, **options)
    layer.build((None, 5, 5, 2))
    rng = np.random.default_rng(1)
    kernels, biases = layer.get_sources()
    layer.assign_sources(
        rng.normal(size=kernels.shape).astype("float32"), rng.normal(size=biases.shape).astype("float32")
    )
    return layer


def plain(layer, source, x):
    """The convolution with the filters of one source (or one per slot)."""
    kernels, biases = layer.get_sources()
    slots = np.arange(layer.slots)
    source = np.broadcast_to(source, slots.shape)
    other = keras.layers.Conv2D(6, 3, padding="same")
    other.build((None, 5, 5, 2))
    kernel = np.stack([kernels[s, ..., j] for s, j in zip(source, slots, strict=True)], axis=-1)
    other.set_weights([kernel, biases[source, slots]])
    return to_numpy(other(x))


def test_samples_are_zeros_and_ones_and_follow_the_logits():
    noise = np.random.default_rng(0).uniform(1e-6, 1 - 1e-6, (4000,)).astype("float32")
    share = to_numpy(sampled_share(ops.full((4000,), 1.0), noise, 0.5))
    assert set(np.unique(share)) <= {0.0, 1.0}
    assert share.mean() == pytest.approx(1 / (1 + np.exp(-1)), abs=0.03)  # P(y > 1/2) is sigmoid(a), whatever tau
    logits = np.log(np.array([0.2, 0.5, 0.3], "float32"))[:, None] * np.ones((1, 4000), "float32")
    noise = np.random.default_rng(1).uniform(1e-6, 1 - 1e-6, (3, 4000)).astype("float32")
    source = to_numpy(sampled_source(logits, noise, 0.7))
    np.testing.assert_array_equal(source.sum(axis=0), 1.0)
    np.testing.assert_allclose(source.mean(axis=1), [0.2, 0.5, 0.3], atol=0.03)


@pytest.mark.parametrize("sharing", ["pool", "source"])
def test_one_task_is_a_plain_layer(sharing):
    layer = conv(1, sharing=sharing)
    x = image(3, 5, 5, 2)
    np.testing.assert_array_equal(to_numpy(layer(x, task=0)), plain(layer, 0, x))
    assert layer.logits is None
    assert layer.stored_parameters() == 6 * (3 * 3 * 2 + 1)
    assert float(layer.share_rate()) == 1.0


@pytest.mark.parametrize("sharing", ["pool", "source"])
@pytest.mark.parametrize("training", [False, True])
def test_shared_private_and_mixed(sharing, training):
    layer = conv(2, sharing=sharing)
    x = image(3, 5, 5, 2)
    own = [1, 2] if sharing == "pool" else [0, 1]
    layer.share_all()
    for task in range(2):
        np.testing.assert_array_equal(to_numpy(layer(x, task=task, training=training)), plain(layer, 0, x))
    assert float(layer.share_rate()) == 1.0
    layer.share_nothing()
    for task in range(2):
        np.testing.assert_array_equal(to_numpy(layer(x, task=task, training=training)), plain(layer, own[task], x))
    assert float(layer.share_rate()) == 0.0
    assert layer.stored_parameters() == 2 * 6 * 19
    mixed = np.array([[0, own[0], 0, 0, own[0], 0], [0, own[1], own[1], 0, 0, 0]])
    layer.set_sources(mixed)
    for task in range(2):
        np.testing.assert_allclose(
            to_numpy(layer(x, task=task, training=training)), plain(layer, mixed[task], x), atol=1e-6
        )
    np.testing.assert_array_equal(layer.sources(), mixed)
    distinct = sum(len(set(column)) for column in mixed.T)
    assert layer.stored_parameters() == distinct * 19
    assert float(layer.share_rate()) == pytest.approx(2 - distinct / 6)


def test_all_tasks_at_once_are_each_by_itself():
    layer = conv(3)
    layer.set_sources(np.random.default_rng(2).integers(0, 3, (3, 6)))
    x = image(4, 5, 5, 6)
    beside = to_numpy(layer(x, task=None))
    same = to_numpy(layer(x[..., :2], task=None))
    for task in range(3):
        np.testing.assert_allclose(
            beside[..., 6 * task : 6 * task + 6], to_numpy(layer(x[..., 2 * task : 2 * task + 2], task=task)), atol=1e-5
        )
        np.testing.assert_allclose(
            same[..., 6 * task : 6 * task + 6], to_numpy(layer(x[..., :2], task=task)), atol=1e-5
        )
    dense = FilterSharingDense(4, num_tasks=2)
    dense.build((None, 3))
    dense.share_nothing()
    kernels, biases = dense.get_sources()
    dense.assign_sources(image(*kernels.shape), image(*biases.shape))
    x = image(5, 6)
    beside = to_numpy(dense(x, task=None))
    for task in range(2):
        mine = x[:, 3 * task : 3 * task + 3] @ dense.get_sources()[0][1 + task] + dense.get_sources()[1][1 + task]
        np.testing.assert_allclose(beside[:, 4 * task : 4 * task + 4], mine, atol=1e-5)


@pytest.mark.parametrize("shared", [False, True])
def test_normalisation_of_tasks_side_by_side(shared):
    layer = TaskBatchNormalization(2, shared=shared, momentum=0.5)
    layer.build((None, 4, 4, 3))
    x = image(8, 4, 4, 6)
    y = to_numpy(layer(x, task=None, training=True))
    groups = [x.reshape(8, 4, 4, 2, 3)] if shared else [x[..., :3], x[..., 3:]]
    rows = layer.get_rows()
    for number, group in enumerate(groups):
        flat = group.reshape(-1, 3)
        np.testing.assert_allclose(rows[2][number], 0.5 * flat.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(rows[3][number], 0.5 + 0.5 * flat.var(axis=0), atol=1e-6)
    if not shared:
        expected = (x[..., 3:] - x[..., 3:].mean((0, 1, 2))) / np.sqrt(x[..., 3:].var((0, 1, 2)) + 1e-3)
        np.testing.assert_allclose(y[..., 3:], expected, atol=1e-5)
        before = layer.get_rows()
        layer(x[..., :3], task=1, training=True)
        np.testing.assert_array_equal(layer.get_rows()[2][0], before[2][0])
        assert (layer.get_rows()[2][1] != before[2][1]).all()


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_filters_stored_are_the_different_ones(tasks, slots, seed):
    sources = np.random.default_rng(seed).integers(0, tasks, (tasks, slots))
    one_hot = (np.arange(tasks)[None, :, None] == sources[:, None]).astype("float32")
    distinct = np.mean([len(set(column)) for column in sources.T])
    found = filters_per_slot(ops.convert_to_tensor(one_hot))
    assert float(found) == pytest.approx(distinct)
    assert 0 <= float(share_rate(found, tasks)) <= 1


def test_phases():
    layer = conv(2, seed=3)
    x = image(2, 5, 5, 2)
    assert layer.phase == "shared"
    np.testing.assert_array_equal(to_numpy(layer(x, task=1, training=True)), plain(layer, 0, x))
    layer.phase = "search"
    layer.logits.assign(np.tile([[0.2, -0.2]], (2, 3)))
    outputs = [to_numpy(layer(x, task=1, training=True)) for _ in range(8)]
    assert any((output != outputs[0]).any() for output in outputs)
    np.testing.assert_array_equal(layer.sources(), [[0, 1] * 3, [0, 2] * 3])
    layer.copy_first_source()
    np.testing.assert_array_equal(layer.get_sources()[0][2], layer.get_sources()[0][0])
    with pytest.raises(ValueError, match="phase"):
        layer.phase = "soft"


def test_one_task_costs_what_a_plain_layer_costs():
    inputs = keras.Input((5, 5, 2))
    layer = FilterSharingConv2D(6, 3, num_tasks=4)
    model = keras.Model(
        inputs, FilterSharingDense(3, num_tasks=4)(keras.layers.Flatten()(layer(inputs, task=2)), task=2)
    )
    assert cost.profile(model).macs == 3 * 3 * 3 * 3 * 2 * 6 + 54 * 3


@pytest.mark.parametrize(
    ("cls", "arguments", "shape"),
    [
        (FilterSharingConv2D, {"filters": 4, "kernel_size": (3, 2), "strides": 2, "activation": "relu"}, (7, 6, 2)),
        (FilterSharingDense, {"units": 4, "use_bias": False, "sharing": "source", "num_tasks": 3}, (5,)),
        (TaskBatchNormalization, {"num_tasks": 3, "scale": False}, (4, 4, 2)),
    ],
)
def test_configuration_shapes_and_saving(cls, arguments, shape, tmp_path):
    layer = cls(**arguments)
    assert cls.from_config(layer.get_config()).get_config() == layer.get_config()
    inputs = keras.Input(shape)
    model = keras.Model(inputs, [layer(inputs, task=0), layer(inputs, task=1)])
    if cls is not TaskBatchNormalization:
        layer.share_nothing()
    x = image(3, *shape)
    outputs = model(x)
    assert outputs[1].shape == (3, *model.outputs[1].shape[1:])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for before, after in zip(outputs, loaded(x), strict=True):
        np.testing.assert_array_equal(to_numpy(before), to_numpy(after))


def test_mixed_precision():
    layer = FilterSharingConv2D(4, 3, num_tasks=2, dtype="mixed_float16")
    y = layer(image(2, 5, 5, 2), task=1, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    assert keras.backend.standardize_dtype(layer.kernels.dtype) == "float32"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"filters": 0}, "filters"),
        ({"num_tasks": 0}, "num_tasks"),
        ({"sharing": "all"}, "sharing"),
        ({"decision_rate": 0}, "decision_rate"),
        ({"frozen_tasks": 2}, "frozen_tasks"),
        ({"padding": "full"}, "padding"),
        ({"strides": 0}, "strides"),
    ],
)
def test_bad_arguments(arguments, word):
    with pytest.raises(ValueError, match=f"`{word}`.*Received"):
        FilterSharingConv2D(**{"filters": 2, "kernel_size": 3, **arguments})


def test_bad_calls():
    layer = conv(2)
    x = image(1, 5, 5, 2)
    with pytest.raises(ValueError, match="`task`"):
        layer(x, task=2)
    with pytest.raises(ValueError, match="`sources`"):
        layer.set_sources(np.zeros((2, 5), int))
    with pytest.raises(ValueError, match="for task 0"):
        layer.set_sources(np.full((2, 6), 2))
    with pytest.raises(ValueError, match="`inputs`"):
        FilterSharingConv2D(2, 3).build((None, 2, 2, 1))
