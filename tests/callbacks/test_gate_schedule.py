import keras
import numpy as np
import pytest

from keras_efficient import callbacks, layers


def concrete(seed=0, filters=8):
    keras.utils.set_random_seed(seed)
    image = keras.Input((6, 6, 3))
    h = layers.GatedConv2D(filters, 3, padding="same", activation="relu", gate="binary_concrete", name="gated")(image)
    return keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(h)))


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    return random.normal(size=(64, 6, 6, 3)).astype("float32"), random.integers(0, 2, 64)


def test_temperatures_by_hand():
    schedule = callbacks.GateSchedule(4.0, 0.25)
    assert [schedule.temperature(epoch, 5) for epoch in range(7)] == [4, 2, 1, 0.5, 0.25, 0.25, 0.25]
    assert schedule.temperature(0, 1) == 0.25


def test_it_reaches_the_layers(data):
    model = concrete()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(*data, epochs=3, verbose=0, callbacks=[callbacks.GateSchedule(1.0, 0.25)])
    assert history.history["gate_temperature"] == pytest.approx([1, 0.5, 0.25])
    assert float(model.get_layer("gated").gate_temperature) == pytest.approx(0.25)


def test_concrete_gates_train_to_a_budget(data):
    model = concrete(filters=32)
    rate = keras.optimizers.schedules.CosineDecay(0.02, 240)
    model.compile(keras.optimizers.Adam(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(
        *data, batch_size=16, epochs=60, verbose=0, callbacks=[callbacks.ComputeBudget(0.5), callbacks.GateSchedule()]
    )
    assert history.history["macs_share"][0] > 0.75
    assert history.history["macs_share"][-1] == pytest.approx(0.5, abs=0.05)


def test_bad_input(data):
    with pytest.raises(ValueError, match="`start`"):
        callbacks.GateSchedule(0)
    with pytest.raises(ValueError, match="`epochs`"):
        callbacks.GateSchedule(epochs=0)
    plain = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    plain.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="binary_concrete"):
        plain.fit(*data, verbose=0, callbacks=[callbacks.GateSchedule()])
