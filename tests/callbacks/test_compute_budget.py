import csv

import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient import cost, datasets
from keras_efficient.callbacks import ComputeBudget
from keras_efficient.layers import GatedConv2D, GatedDense, LayerGate
from keras_efficient.layers.dynamic import dynamic_layers

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def gated_network(widths=(12, 24)):
    """A small LC-Net for digits: blocks with both kinds of gates."""
    x = keras.Input((8, 8, 1))
    h = keras.layers.Conv2D(widths[0], 3, padding="same", activation="relu")(x)
    for index, width in enumerate(widths):
        inputs = keras.Input(h.shape[1:])
        gated = {"padding": "same", "batch_normalization": True, "momentum": 0.9}
        y, gate = GatedConv2D(width, 3, 1 + index, activation="relu", return_gate=True, **gated)(inputs)
        y = GatedConv2D(width, 3, gate=None, **gated)(y, input_gate=gate)
        shortcut = keras.layers.Conv2D(width, 1, strides=2) if index else "identity"
        h = keras.layers.ReLU()(LayerGate(keras.Model(inputs, y), shortcut)(h))
    h = keras.layers.GlobalAveragePooling2D()(h)
    return keras.Model(x, keras.layers.Dense(10)(h))


def test_trains_to_the_budget():
    """The share of dense MACs on validation data, with hard gates, ends within 0.05 of the target."""
    keras.utils.set_random_seed(0)
    data = datasets.load("digits")
    model = gated_network()
    epochs, batch_size = 12, 32
    steps = epochs * -(-len(data.x_train) // batch_size)
    rate = keras.optimizers.schedules.CosineDecay(4e-3, steps)
    model.compile(keras.optimizers.Adam(rate), LOSS, metrics=["accuracy"])
    history = model.fit(
        data.x_train, data.y_train, batch_size=batch_size, epochs=epochs, verbose=0, callbacks=[ComputeBudget(0.5)]
    ).history
    report = cost.profile(model, data.x_validation, batch_size=len(data.x_validation))
    share = report.expected_macs / report.macs
    assert abs(share - 0.5) <= 0.05, history["macs_share"]
    assert history["macs_share"][-1] == pytest.approx(share, abs=0.03)
    assert model.evaluate(data.x_validation, data.y_validation, verbose=0)[1] > 0.9
    assert all(float(ops.convert_to_numpy(layer.budget_coefficient)) == 0 for layer in dynamic_layers(model))


def tiny(**arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4, 4, 2)), GatedConv2D(6, 3, **arguments), keras.layers.Flatten()])
    model.compile("sgd", "mse")
    return model


X = np.random.default_rng(0).normal(size=(12, 4, 4, 2)).astype("float32")
Y = np.zeros((12, 24), "float32")


def coefficients(model, callback, epochs=2, **arguments):
    """The coefficient times dense MACs after every batch."""
    found = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            getattr(model, "jax_state_sync", lambda: None)()
            layer = model.layers[0]
            found.append(float(ops.convert_to_numpy(layer.budget_coefficient)) * cost.profile(model).macs)

    model.fit(X, Y, batch_size=4, epochs=epochs, verbose=0, callbacks=[callback, Watch()], **arguments)
    return found


def test_coefficient_by_hand():
    # All gates stay open, so that the share is 1 and the error 0.6 once the warm-up is over.
    found = coefficients(tiny(), ComputeBudget(0.4, strength=3, integral=0, damping=0, warmup_epochs=0))
    np.testing.assert_allclose(found, [2 * 3 * 0.6] * 6, rtol=1e-4)
    found = coefficients(tiny(), ComputeBudget(0.4, strength=3, integral=0, damping=5, warmup_epochs=2))
    np.testing.assert_allclose(found, np.arange(1, 7) / 6 * 2 * 3 * 0.6, rtol=1e-4)
    found = coefficients(tiny(), ComputeBudget(0.4, strength=3, integral=0.5, damping=0, warmup_epochs=0))
    np.testing.assert_allclose(found, 6 * np.asarray([0.9, 1.2, 1.5, 1.6, 1.6, 1.6]), rtol=1e-4)  # bounded by 1
    found = coefficients(tiny(), ComputeBudget(0.4, strength=3, integral=0, warmup_epochs=0, update_every=4))
    np.testing.assert_allclose(found, [0, 0, 0, 3.6, 3.6, 3.6], rtol=1e-4)


def test_shut_gates_get_a_negative_coefficient():
    shut = tiny(gate_bias_initializer=keras.initializers.Constant(-0.5), gate_kernel_initializer="zeros")
    found = coefficients(shut, ComputeBudget(0.5, strength=1, integral=0, damping=0, warmup_epochs=0), epochs=1)
    gate_net = 2 * 6 / cost.profile(shut).macs
    assert found[-1] == pytest.approx(2 * (gate_net - 0.5), rel=1e-4)


def test_a_further_fit_starts_from_the_share_that_it_finds():
    model = tiny(gate_bias_initializer=keras.initializers.Constant(-0.5), gate_kernel_initializer="zeros")
    gate_net = 2 * 6 / cost.profile(model).macs
    budget = {"strength": 1, "integral": 0, "damping": 10}
    for arguments in ({"epochs": 2}, {"epochs": 5, "initial_epoch": 3}):  # six batches, and six more
        found = coefficients(model, ComputeBudget(0.5, warmup_epochs=2, **budget), **arguments)
        goals = gate_net + np.arange(1, 7) / 6 * (0.5 - gate_net)
        np.testing.assert_allclose(found, 2 * (gate_net - goals), rtol=1e-4, atol=1e-6)


def test_layers_that_are_called_twice_count_twice():
    keras.utils.set_random_seed(0)
    left, right = keras.Input((4, 4, 2)), keras.Input((4, 4, 2))
    shared = GatedConv2D(6, 3, gate_bias_initializer=keras.initializers.Constant(-0.5), gate_kernel_initializer="zeros")
    both = keras.layers.Flatten()(keras.layers.Add()([shared(left), shared(right)]))
    model = keras.Model([left, right], both)
    model.compile("sgd", "mse")
    history = model.fit([X, X], Y, verbose=0, callbacks=[ComputeBudget(0.4, damping=0, integral=0)]).history
    assert history["macs_share"][0] == pytest.approx(2 * 2 * 6 / cost.profile(model).macs, rel=1e-5)


def test_share_is_in_the_logs_of_those_who_come_after(tmp_path):
    model = tiny()
    log = tmp_path / "log.csv"
    history = model.fit(
        X, Y, epochs=2, verbose=0, validation_data=(X, Y),
        callbacks=[ComputeBudget(0.5), keras.callbacks.CSVLogger(log)],
    ).history  # fmt: skip
    assert history["macs_share"] == [1.0, 1.0]
    with log.open() as file:
        assert [float(row["macs_share"]) for row in csv.DictReader(file)] == [1.0, 1.0]


def test_share_is_in_the_progress_bar(capsys):
    tiny().fit(X, Y, epochs=1, verbose=2, callbacks=[ComputeBudget(0.5)])
    assert "macs_share: 1.0" in capsys.readouterr().out


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras's TensorBoard callback needs TensorFlow")
def test_share_is_in_tensorboard(tmp_path):
    import tensorflow as tf

    tiny().fit(X, Y, verbose=0, callbacks=[ComputeBudget(0.5), keras.callbacks.TensorBoard(tmp_path)])
    tags = set()
    for path in tmp_path.rglob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            tags |= {value.tag for value in event.summary.value}
    assert "epoch_macs_share" in tags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 0.0}, "`target`. Expected a share in (0, 1]. Received: 0.0"),
        ({"target": 1.2}, "`target`. Expected a share in (0, 1]. Received: 1.2"),
        ({"target": "half"}, "`target`. Expected a share in (0, 1]. Received: 'half'"),
        ({"strength": -1}, "`strength`. Expected a number of at least 0. Received: -1"),
        ({"damping": float("nan")}, "`damping`. Expected a number of at least 0. Received: nan"),
        ({"update_every": 0}, "`update_every`. Expected a positive integer. Received: 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as error:
        ComputeBudget(**{"target": 0.5, **arguments})
    assert message in str(error.value)


def test_models_without_gates_or_with_too_little_to_save():
    plain = keras.Sequential(
        [keras.Input((4, 4, 2)), GatedConv2D(6, 3, gate=None), keras.layers.Flatten()], name="plain"
    )
    plain.compile("sgd", "mse")
    with pytest.raises(ValueError, match="expected a model with gated layers.* Received: `plain` without any"):
        plain.fit(X, Y, verbose=0, callbacks=[ComputeBudget(0.5)])
    heavy = keras.Sequential(
        [keras.Input((4, 4, 2)), keras.layers.Conv2D(8, 3, padding="same"), GatedConv2D(2, 1), keras.layers.Flatten()]
    )
    heavy.compile("sgd", "mse")
    with pytest.raises(ValueError, match="`target`. Expected more than the share of what is never gated, 0.90"):
        heavy.fit(X, np.zeros((12, 32)), verbose=0, callbacks=[ComputeBudget(0.5)])
    never = keras.Sequential([keras.Input((100,)), GatedDense(100), GatedDense(10, gate=None)])
    never.compile("sgd", "mse")
    with pytest.raises(ValueError, match="what is never gated, 0.524"):  # 10,000 of a gate net, 1,000 without gates
        never.fit(np.zeros((4, 100)), np.zeros((4, 10)), verbose=0, callbacks=[ComputeBudget(0.5)])
    x = keras.Input((None, None, 2))
    unknown = keras.Model(x, keras.layers.GlobalAveragePooling2D()(GatedConv2D(2, 1)(x)))
    unknown.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Expected static dimensions"):
        unknown.fit(X, np.zeros((12, 2)), verbose=0, callbacks=[ComputeBudget(0.5)])


def test_several_steps_per_call_count_as_several_batches():
    model = keras.Sequential([keras.Input((6, 6, 2)), GatedConv2D(4, 3), keras.layers.GlobalAveragePooling2D()])
    model.compile("sgd", "mse", steps_per_execution=4)
    budget = ComputeBudget(target=0.5, warmup_epochs=2)
    warmth = []
    budget._set = lambda coefficient: warmth.append(budget._warmth())
    model.fit(np.zeros((64, 6, 6, 2)), np.zeros((64, 4)), batch_size=8, epochs=2, verbose=0, callbacks=[budget])
    assert warmth[1:5] == [0.25, 0.5, 0.75, 1.0]  # behind the one before training
