"""The schedule of filter sharing: phases, target share rate, bilevel training, bad input."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient.callbacks import FilterSharingSchedule
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
    assert model.share_rate() == pytest.approx(0.5, abs=0.2)
    assert float(ops.convert_to_numpy(model.share_strength)) == 0.0


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


def test_bilevel_learns_decisions_on_other_data():
    model = network()
    x, y = data(32)
    held_out = (x[16:], {task: labels[16:] for task, labels in y.items()})
    before = [ops.convert_to_numpy(layer.logits) for layer in model.sharing_layers]
    schedule = FilterSharingSchedule(0.2, warmup=0.0, search=1.0, decision_data=held_out)
    model.fit(x[:16], {task: labels[:16] for task, labels in y.items()}, epochs=2, verbose=0, callbacks=[schedule])
    after = [ops.convert_to_numpy(layer.logits) for layer in model.sharing_layers]
    assert all(np.abs(b - a).max() > 1e-3 for a, b in zip(before, after, strict=True))
    frozen = [ops.convert_to_numpy(layer.logits) for layer in model.sharing_layers]
    model.set_phase("search")
    for layer in model.sharing_layers:
        layer.learning.assign(0.0)
    model.fit(x, y, epochs=1, verbose=0)
    for layer, known in zip(model.sharing_layers, frozen, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(layer.logits), known, atol=5e-2)


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
