import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient import datasets
from keras_efficient.callbacks import AdaptiveBitwidth
from keras_efficient.quantization import quantize

DIGITS = datasets.load("digits")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def trained():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(8, 3, activation="relu", name="conv")(x)
    x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(32, activation="relu", name="dense")(x)
    model = keras.Model(inputs, keras.layers.Dense(10, name="head")(x))
    model.compile(keras.optimizers.Adam(5e-3), LOSS, metrics=["accuracy"])
    model.fit(DIGITS.x_train, DIGITS.y_train, batch_size=64, epochs=12, verbose=0)
    return model


@pytest.fixture(scope="module")
def network():
    return trained()


def multi_bit(network, bits=2):
    model = quantize(network, bits, {"dense": 24}).model
    model.compile(keras.optimizers.Adam(3e-3), LOSS, metrics=["accuracy"])
    return model


def test_reaches_the_target_and_keeps_the_accuracy(network, capsys):
    model = multi_bit(network)
    schedule = AdaptiveBitwidth(
        0.9,
        keep=0.6,
        basis_epochs=1,
        coordinate_epochs=0,
        latent_epochs=6,
        final_epochs=0,
        latent_decay=0.8,
        prune_every=3,
    )
    epochs = schedule.epochs(model)
    assert epochs == 2 * 2 + 6
    history = model.fit(
        DIGITS.x_train, DIGITS.y_train, batch_size=64, epochs=epochs + 5, callbacks=[schedule], verbose=0
    ).history
    assert len(history["loss"]) == epochs  # it stops
    smallest = min(layer.grouping.size for layer in model.adaptive_layers)
    largest = max(layer.grouping.size for layer in model.adaptive_layers)
    assert 0.9 - largest / 4000 <= model.average_bits <= 0.9
    assert smallest < largest
    np.testing.assert_allclose(history["average_bits"][1], (2 * 0.9) ** 0.5, atol=0.03)  # half-way, geometrically
    assert history["round"] == [1.0] * 2 + [2.0] * 2 + [0.0] * 6
    _, accuracy = model.evaluate(DIGITS.x_test, DIGITS.y_test, verbose=0)
    _, before = network.evaluate(DIGITS.x_test, DIGITS.y_test, verbose=0)
    assert accuracy > before - 0.06
    np.testing.assert_allclose(float(ops.convert_to_numpy(model.optimizer.learning_rate)), 3e-3)
    for layer in model.adaptive_layers:
        kernel = ops.convert_to_numpy(layer.kernel)
        np.testing.assert_allclose(kernel, ops.convert_to_numpy(layer.float_kernel()), atol=1e-6)
        scales = ops.convert_to_numpy(layer.scales)
        assert (np.diff(scales, axis=1) <= 0).all()
        assert (scales >= 0).all()
    said = capsys.readouterr().out
    assert "round 2: pruning" in said
    assert "after the last round: latent" in said


def test_plan(network):
    schedule = AdaptiveBitwidth(1.0, keep=0.7, basis_epochs=2, coordinate_epochs=1, latent_epochs=2, final_epochs=1)
    plan = schedule.plan(multi_bit(network))
    assert [phase.mode for phase in plan] == ["basis", "basis", "coordinate", "moments"] * 2 + ["latent"] * 2 + [
        "coordinate"
    ]
    np.testing.assert_allclose([phase.bits for phase in plan if phase.bits], [2**0.5, 1.0])
    np.testing.assert_allclose([phase.rate for phase in plan[4:]], [1, 0.7, 0.49, 0.343, 1, 0.9, 0.81])


def test_goes_on_from_the_bits_that_a_model_has(network):
    model = multi_bit(network)
    assert [phase.mode for phase in AdaptiveBitwidth(2.0, latent_epochs=1, final_epochs=1).plan(model)] == [
        "latent",
        "coordinate",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target_bits": 0}, "`target_bits`. Expected a positive number. Received: 0"),
        ({"keep": 1}, r"`keep`. Expected a number in \(0, 1\). Received: 1"),
        ({"basis_epochs": -1}, "`basis_epochs`. Expected an integer of at least 0. Received: -1"),
        ({"decay": 0}, r"`decay`. Expected a number in \(0, 1\]. Received: 0"),
        ({"prune_every": 0}, "`prune_every`. Expected a positive integer. Received: 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveBitwidth(**{"target_bits": 1.0, **arguments})


@pytest.mark.parametrize("target", [1e-4, 2.5])
def test_a_target_that_cannot_be_reached(network, target):
    with pytest.raises(
        ValueError, match=rf"`target_bits`. Expected a number from .* to the 2 that .* Received: {target}"
    ):
        multi_bit(network).fit(DIGITS.x_train, DIGITS.y_train, callbacks=[AdaptiveBitwidth(target)], verbose=0)


def test_bad_models_and_too_few_epochs(network):
    with pytest.raises(ValueError, match="expected a `MultiBitModel` as `quantization.quantize` makes it"):
        network.fit(DIGITS.x_train, DIGITS.y_train, callbacks=[AdaptiveBitwidth(1.0)], verbose=0)
    with pytest.raises(ValueError, match="number of epochs. Expected at least 39 .* Received: 3"):
        multi_bit(network).fit(DIGITS.x_train, DIGITS.y_train, epochs=3, callbacks=[AdaptiveBitwidth(1.0)], verbose=0)
    model = multi_bit(network)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, 10)), LOSS)
    with pytest.raises(ValueError, match="Expected one with a constant learning rate"):
        model.fit(DIGITS.x_train, DIGITS.y_train, epochs=99, callbacks=[AdaptiveBitwidth(1.0)], verbose=0)
