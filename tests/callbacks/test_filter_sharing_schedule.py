"""The schedule of filter sharing: phases, target share rate, bilevel training, bad input."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient.callbacks import FilterSharingSchedule
from keras_efficient.callbacks.share_rate import meet_share_rate
from keras_efficient.layers import FilterSharingDense
from keras_efficient.models import MultiTask

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(**options):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(12, activation="relu", name="one")(inputs)
    backbone = keras.Model(inputs, keras.layers.Dense(12, activation="relu", name="two")(x))
    model = MultiTask(backbone, {"a": 3, "b": 3}, seed=0, **options)
    model.compile(keras.optimizers.Adam(0.01), LOSS, jit_compile=False)
    return model


def data(count=64):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, 6)).astype("float32"), {task: rng.integers(0, 3, count) for task in "ab"}


class Watch(keras.callbacks.Callback):
    """Notes the phases of all layers in every epoch."""

    def __init__(self):
        super().__init__()
        self.phases = []

    def on_epoch_end(self, epoch, logs=None):
        self.phases.append([layer.phase for layer in self.model.sharing_layers])


def test_phases_and_target():
    model, watch = network(), Watch()
    x, y = data()
    schedule = FilterSharingSchedule(0.5, strength=20.0, warmup=0.1, search=0.6)
    history = model.fit(x, y, epochs=20, batch_size=16, verbose=0, callbacks=[schedule, watch]).history
    assert watch.phases == [["shared"] * 2] * 2 + [["search"] * 2] * 12 + [["hard"] * 2] * 6
    assert history["share_rate"][:2] == [1.0, 1.0]
    assert history["share_rate"][-1] == pytest.approx(model.share_rate())
    smallest = 6 / sum(layer.parameters_per_slot * layer.slots for layer in model.sharing_layers)
    assert 0.5 <= model.share_rate() <= 0.5 + 4 * smallest  # a private filter more would be too many
    assert float(ops.convert_to_numpy(model.share_strength)) == 0.0


def test_normalisations_act_as_one_in_the_warm_up():
    inputs = keras.Input((6,))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(4, name="one")(inputs))
    model = MultiTask(keras.Model(inputs, x), {"a": 3, "b": 3}, seed=0)
    model.compile(keras.optimizers.Adam(0.01), LOSS, jit_compile=False)
    norm, seen = model.body[1], []

    def look(epoch, logs):
        gammas = norm.get_rows()[0]
        seen.append((norm.together, bool((gammas[0] == gammas[1]).all()), bool((gammas == 1).all())))

    x, y = data()
    schedule = FilterSharingSchedule(0.5, warmup=0.5, search=0.25)
    watch = keras.callbacks.LambdaCallback(on_epoch_end=look)
    model.fit(x, y, epochs=4, verbose=0, callbacks=[schedule, watch])
    assert seen == [(True, True, False)] * 2 + [(False, False, False)] * 2


def test_decisions_nearest_to_undecided_turn_until_the_target_is_met():
    model = network()
    one, two = model.sharing_layers
    one.logits.assign(np.linspace(0.1, 2.4, 24).reshape(2, 12))
    two.logits.assign(np.linspace(-1.0, -0.1, 24).reshape(2, 12))
    order = np.argsort(np.concatenate([ops.convert_to_numpy(layer.logits).ravel() for layer in (one, two)]))
    meet_share_rate([one, two], 0.25)
    for layer in (one, two):
        layer.phase = "hard"
    assert 0.25 <= model.share_rate() < 0.25 + 2 * 13 / (12 * (7 + 13))
    shared = np.concatenate([(layer.sources() == 0).ravel() for layer in (one, two)])[order]
    assert (np.diff(shared.astype(int)) >= 0).all()  # those that are private now had the least to say for sharing
    meet_share_rate([one, two], 1.0)
    assert model.share_rate() == 1.0
    meet_share_rate([one, two], 0.0)
    assert model.share_rate() == 0.0


def test_layers_unlock_from_the_last():
    model, watch = network(), Watch()
    x, y = data(16)
    schedule = FilterSharingSchedule(0.5, warmup=0.25, search=0.5, unlock=True)
    model.fit(x, y, epochs=8, verbose=0, callbacks=[schedule, watch])
    assert watch.phases[2] == ["shared", "search"]
    assert watch.phases[5] == ["search", "search"]
    assert watch.phases[7] == ["hard", "hard"]


def test_a_price_alone_keeps_everything_shared():
    model = network()
    x, y = data(16)
    model.fit(x, y, epochs=4, verbose=0, callbacks=[FilterSharingSchedule(None, private_price=100.0)])
    assert model.share_rate() == 1.0


class Passes(keras.callbacks.Callback):
    """Notes decisions and filters before and after the bilevel pass that begins an epoch."""

    def __init__(self):
        super().__init__()
        self.before, self.after, self.ends = [], [], []

    def state(self):
        layers = self.model.sharing_layers
        return [(ops.convert_to_numpy(layer.logits), layer.get_sources()[0]) for layer in layers]

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.after.append(self.state())

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(self.state())


def test_bilevel_learns_decisions_on_other_data_and_weights_on_these():
    model, passes = network(), Passes()
    x, y = data(32)
    held_out = (x[16:], {task: labels[16:] for task, labels in y.items()})
    schedule = FilterSharingSchedule(0.2, warmup=0.0, search=1.0, decision_data=held_out)
    train = x[:16], {task: labels[:16] for task, labels in y.items()}
    history = model.fit(*train, epochs=3, verbose=0, callbacks=[schedule, passes]).history
    for now, end, following in zip(passes.after, passes.ends, passes.after[1:], strict=False):
        for (logits, kernels), (logits_end, kernels_end), (logits_then, kernels_then) in zip(
            now, end, following, strict=True
        ):
            np.testing.assert_array_equal(logits, logits_end)  # this data moves weights alone
            assert np.abs(kernels - kernels_end).max() > 1e-4
            assert np.abs(logits_end - logits_then).max() > 1e-4  # the other data decisions alone
            np.testing.assert_array_equal(kernels_end, kernels_then)
    assert all(float(ops.convert_to_numpy(layer.learning)) == 1.0 for layer in model.sharing_layers)
    assert history["a_loss"][0] > 0.7  # ln 3 is 1.1: the pass does not count among this data's losses


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_a_resumed_training_goes_on_where_it_was(stop):
    x, y = data()
    schedule = {"target": 0.5, "warmup": 0.25, "search": 0.25}
    whole, parts = network(), network()
    parts.set_weights(whole.get_weights())

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == stop:
                raise KeyboardInterrupt

    whole.fit(x, y, epochs=8, shuffle=False, verbose=0, callbacks=[FilterSharingSchedule(**schedule)])
    options = {"epochs": 8, "shuffle": False, "verbose": 0}
    with pytest.raises(KeyboardInterrupt):
        parts.fit(x, y, callbacks=[Stop(), FilterSharingSchedule(**schedule)], **options)
    watch = Watch()
    parts.fit(x, y, initial_epoch=stop, callbacks=[FilterSharingSchedule(**schedule), watch], **options)
    assert watch.phases == ([["shared"] * 2] * 2 + [["search"] * 2] * 2 + [["hard"] * 2] * 4)[stop:]
    assert parts.share_rate() == pytest.approx(0.5, abs=0.08)
    if stop == 6:  # nothing is sampled any more
        for one, other in zip(whole.get_weights(), parts.get_weights(), strict=True):
            if one.dtype == np.float32:
                np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(("epochs", "target"), [(3, 0.5), (6, 0.8), (6, 0.3)])
def test_three_tasks_meet_their_target_with_a_source_each(epochs, target):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(12, activation="relu", name="one")(inputs)
    backbone = keras.Model(inputs, keras.layers.Dense(12, activation="relu", name="two")(x))
    model = MultiTask(backbone, dict.fromkeys("abc", 3), seed=0)
    assert model.sharing_layers[0].sharing == "source"
    model.compile(keras.optimizers.Adam(0.01), LOSS, jit_compile=False)
    x, y = data()
    y["c"] = y["a"]
    model.fit(x, y, epochs=epochs, verbose=0, callbacks=[FilterSharingSchedule(target, search=0.5)])
    assert target <= model.share_rate() <= target + 0.05


def test_decisions_that_tie_turn_one_by_one():
    model = network()
    meet_share_rate(model.sharing_layers, 0.5)  # all undecided alike
    assert 0.5 <= model.share_rate() < 0.5 + 13 / 240  # one more filter of the larger layer would be too many


def test_the_target_of_an_added_task_counts_finished_filters():
    model = network()
    model.share_all()
    later = model.with_task("c", 3)
    later.compile(keras.optimizers.Adam(0.01), LOSS, jit_compile=False)
    x, y = data()
    later.fit(x, {"c": y["a"]}, epochs=4, verbose=0, callbacks=[FilterSharingSchedule(0.75, search=0.5)])
    assert 0.75 <= later.share_rate() <= 0.78  # of 0.5 to 1
    for layer in later.sharing_layers:
        sources = layer.sources()
        assert (sources[:2] == 0).all()
        assert 0.2 < (sources[2] == 3).mean() < 0.8


def test_groups_of_tasks_that_share_survive():
    layer = FilterSharingDense(8, num_tasks=4, sharing="source")
    layer.build((None, 2))
    groups = np.repeat(np.array([[0], [0], [2], [2]]), 8, axis=1)
    layer.set_sources(groups)
    meet_share_rate([layer], 2 / 3)  # as it is
    np.testing.assert_array_equal(layer.sources(), groups)
    meet_share_rate([layer], 0.5)
    assert float(ops.convert_to_numpy(layer.share_rate())) == pytest.approx(0.5, abs=1e-6)
    changed = layer.sources() != groups
    assert changed.sum() == 4
    assert (layer.sources()[changed] == np.repeat(np.arange(4)[:, None], 8, axis=1)[changed]).all()
    meet_share_rate([layer], 1.0)
    assert float(ops.convert_to_numpy(layer.share_rate())) == 1.0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"target": 1.5}, "target"),
        ({"target": -0.1}, "target"),
        ({"warmup": 2.0}, "warmup"),
        ({"search": 0.0}, "search"),
        ({"warmup": 0.6, "search": 0.6}, "search"),
        ({"strength": -1.0}, "strength"),
        ({"private_price": -1.0}, "private_price"),
        ({"temperature": (0.0, 1.0)}, "temperature"),
        ({"temperature": 0.5}, "temperature"),
    ],
)
def test_bad_arguments(arguments, word):
    with pytest.raises(ValueError, match=f"`{word}`.*Received"):
        FilterSharingSchedule(**arguments)


def test_needs_a_network_of_several_tasks():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.compile("sgd", LOSS)
    with pytest.raises(ValueError, match="MultiTask"):
        model.fit(data()[0], data()[1]["a"], verbose=0, callbacks=[FilterSharingSchedule()])
