"""What Keras users do around training multi-bit networks: outputs by name, frozen layers, restored weights."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_efficient import quantization
from keras_efficient.callbacks import AdaptiveBitwidth
from keras_efficient.layers import MultiBitDense

RNG = np.random.default_rng(0)
X = RNG.normal(2.0, 3.0, size=(24, 12)).astype("float32")
Y = {"left": RNG.normal(size=(24, 3)).astype("float32"), "right": RNG.normal(size=(24, 2)).astype("float32")}


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def single(**options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,))
    x = layers.Dense(16, activation="relu", name="one", **options)(inputs)
    return keras.Model(inputs, layers.Dense(3, name="two")(x))


def multi_bit(bits=2, optimizer="sgd", **options):
    model = quantization.quantize(single(), bits, {"one": 6, "two": 8}).model
    model.compile(optimizer, "mse", **options)
    return model


def fit(model, **options):
    return model.fit(X, Y["left"], **{"batch_size": 8, "verbose": 0, "shuffle": False, **options})


def test_normalizations_keep_what_they_learned():
    normalize = layers.Normalization(name="normalize")
    normalize.adapt(X)
    inputs = keras.Input((12,))
    model = keras.Model(inputs, layers.Dense(3)(normalize(inputs)))
    expected = model.predict(X, verbose=0)
    made = quantization.quantize(model, 8).model
    for copy in (made, quantization.finished(made), quantization.quantize_activations(made, {}).get_layer("normalize")):
        found = copy.predict(X, verbose=0) if isinstance(copy, keras.Model) else None
        if found is None:
            np.testing.assert_allclose(array(copy(X)), array(normalize(X)), rtol=1e-5)
        else:
            np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())


def test_outputs_by_name():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((12,))
    x = layers.Dense(16, activation="relu")(inputs)
    both = {name: layers.Dense(size, name=f"head_{name}")(x) for name, size in (("left", 3), ("right", 2))}
    plain = keras.Model(inputs, both)
    model = quantization.quantize(plain, 2).model
    expected = model.predict(X, verbose=0)
    assert set(expected) == {"left", "right"}
    model.compile(keras.optimizers.SGD(0.0), {"left": "mse", "right": "mae"}, metrics={"right": ["mse"]})
    found = model.fit(X, Y, batch_size=24, verbose=0).history
    losses = [np.square(expected["left"] - Y["left"]).mean(), np.abs(expected["right"] - Y["right"]).mean()]
    assert found["loss"][0] == pytest.approx(sum(losses), rel=1e-4)
    assert found["left_loss"][0] == pytest.approx(losses[0], rel=1e-4)
    assert found["right_mse"][0] == pytest.approx(np.square(expected["right"] - Y["right"]).mean(), rel=1e-4)
    model = quantization.quantize(plain, 2).model
    model.compile("sgd", {"left": "mse", "right": None})  # a layer that nothing is learned about
    model.phase = "coordinate"
    before = array(model.get_layer("head_right").scales)
    model.fit(X, Y, verbose=0)
    np.testing.assert_allclose(array(model.get_layer("head_right").scales), before, rtol=1e-5)


def test_loaded_weights_are_what_training_goes_on_from(tmp_path):
    model = multi_bit(optimizer=keras.optimizers.Adam(1e-2))
    model.save_weights(tmp_path / "first.weights.h5")
    first = array(model.get_layer("one").kernel)
    model.phase = "latent"
    fit(model, epochs=10)
    assert np.abs(array(model.get_layer("one").kernel) - first).max() > 0.02
    model.load_weights(tmp_path / "first.weights.h5")
    model.optimizer.learning_rate.assign(1e-6)
    fit(model)
    np.testing.assert_allclose(array(model.get_layer("one").kernel), first, atol=1e-2)


def test_bases_that_come_back_with_weights_are_trained():
    model = multi_bit()
    whole = model.get_weights()
    fit(model)
    model.prune(1e9)
    model.compact()
    fit(model)
    assert model.get_layer("one").live_bases == 1
    model.set_weights(whole)
    fit(model)
    assert model.get_layer("one").live_bases == 2
    assert np.all(array(model.get_layer("one").scales)[:, 1] != 0)


def test_bases_behind_shut_ones_are_taken_along():
    model = multi_bit(3)
    scales = array(model.get_layer("one").scales).copy()
    scales[:, 0] = 0.0  # pruned, and not sorted since
    model.get_layer("one").scales.assign(scales)
    model.get_layer("one").kernel.assign(model.get_layer("one").float_kernel())
    copy = quantization.quantize_activations(model, {})
    np.testing.assert_allclose(copy.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-4, atol=1e-5)
    assert copy.get_layer("one").live_bases == 2


def schedule(target=1.0, **options):
    return AdaptiveBitwidth(target, basis_epochs=1, coordinate_epochs=0, latent_epochs=1, final_epochs=0, **options)


def test_a_fit_that_begins_later():
    model = multi_bit()
    plan = schedule(verbose=0)
    count = plan.epochs(model)
    with pytest.raises(ValueError, match=f"Expected at least {count} .* Received: {count - 3}"):
        fit(model, initial_epoch=3, epochs=count, callbacks=[plan])
    history = fit(model, initial_epoch=3, epochs=3 + count, callbacks=[schedule(verbose=0)])
    assert len(history.epoch) == count
    assert model.average_bits <= 1.0


def test_the_rate_of_a_model_saved_in_the_middle_can_be_given_anew():
    model = multi_bit()
    model.optimizer.learning_rate.assign(1e-5)
    rates = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: rates.append(float(array(model.optimizer.learning_rate)))
    )
    fit(model, epochs=20, callbacks=[schedule(learning_rate=0.01, verbose=0, decay=0.5), watch])
    assert rates[0] == pytest.approx(0.01)
    with pytest.raises(ValueError, match="`learning_rate`"):
        schedule(learning_rate=0.0)


@pytest.mark.parametrize("steps_known", [True, False])
def test_removals_go_on_within_an_epoch_of_pruning(steps_known):
    model = multi_bit(steps_per_execution=2)
    counts = []
    prune = model.prune
    model.prune = lambda bits: counts.append(bits) or prune(bits)
    batches = [(X[i : i + 2], Y["left"][i : i + 2]) for i in range(0, 24, 2)]

    plan = schedule(keep=0.4, prune_every=3, verbose=0)
    if steps_known:
        source = X, Y["left"]
    else:
        tf = pytest.importorskip("tensorflow")
        shapes = tf.TensorSpec((2, 12)), tf.TensorSpec((2, 3))
        source = (tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=shapes),)
    model.fit(*source, batch_size=2 if steps_known else None, epochs=plan.epochs(model), verbose=0, callbacks=[plan])
    assert len(counts) == 4  # behind 4, 6, 10 and all 12 batches, in twos
    assert model.average_bits <= 1.0


def test_optimizers_with_schedules_train_without_the_callback():
    model = multi_bit(optimizer=keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(1e-2, 6)))
    losses = fit(model, epochs=2).history["loss"]
    assert losses[1] < losses[0]


def test_optimizers_that_scale_the_loss_are_refused():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    for optimizer in (scaled, keras.optimizers.SGD(loss_scale_factor=2.0)):
        with pytest.raises(ValueError, match=f"not scale the loss.* Received: {type(optimizer).__name__}"):
            fit(multi_bit(optimizer=optimizer))


def test_frozen_layers_stay():
    model = single(trainable=False, activity_regularizer="l2")
    made = quantization.quantize(model, 2, {"one": 6, "two": 8}).model
    assert not made.get_layer("one").trainable
    assert made.get_layer("one").activity_regularizer is not None
    made.compile(keras.optimizers.SGD(0.05), "mse")
    before = {name: array(made.get_layer(name).kernel) for name in ("one", "two")}
    one, two = made.get_layer("one"), made.get_layer("two")
    share = one.num_weights / made.num_weights
    with pytest.raises(ValueError, match="`target_bits`"):
        schedule(2 * share).epochs(made)  # 2 bits of the frozen layer, nothing of the other
    target = 2 * share + 1.3 * (1 - share)
    plan = schedule(target, verbose=0)
    made.fit(X, Y["left"], epochs=plan.epochs(made), verbose=0, callbacks=[plan])
    np.testing.assert_array_equal(array(one.kernel), before["one"])
    assert np.abs(array(two.kernel) - before["two"]).max() > 1e-3
    assert made.average_bits <= target
    assert quantization.summary(made).other_bytes == 0.0


def test_scales_count_their_own_gradients():
    model = multi_bit()
    model.phase = "latent"
    fit(model, epochs=2)
    layer = model.get_layer("one")
    assert float(array(layer.gradients_seen)) == 6
    assert float(array(layer.scale_gradients_seen)) == 0
    model.optimizer.learning_rate.assign(1e-3)
    before = array(layer.scales)
    model.phase = "coordinate"
    model.fit(X, Y["left"], batch_size=24, verbose=0)
    # The first step of AMSGrad is the learning rate long, whatever the gradient.
    np.testing.assert_allclose(np.abs(array(layer.scales) - before)[before != 0], 1e-3, rtol=1e-2)


def test_a_layer_of_zeros():
    model = single()
    model.get_layer("two").kernel.assign(np.zeros((16, 3), "float32"))
    made = quantization.quantize(model, 2, {"one": 6, "two": 8}).model
    assert made.get_layer("two").live_bases == 0
    made.compile("sgd", "mse")
    for phase in ("basis", "coordinate", "latent"):
        made.phase = phase
        assert np.isfinite(made.fit(X, Y["left"], verbose=0).history["loss"][0])


def test_what_is_left_in_floats_is_named():
    inner = keras.Sequential([keras.Input((12,)), layers.Dense(16, name="inside")], name="backbone")
    model = keras.Sequential([keras.Input((12,)), inner, layers.BatchNormalization(), layers.Dense(3, name="head")])
    report = quantization.quantize(model, 2)
    assert {row.name: bool(row.structure) for row in report.layers} == {"backbone": False, "head": True}
    assert "Sequential" in str(report)
    frozen = report.model
    learnt = quantization.summary(frozen).other_bytes
    frozen.get_layer("backbone").trainable = False
    assert quantization.summary(frozen).other_bytes == learnt
    assert learnt == 4 * (12 * 16 + 16 + 2 * 16)


def test_networks_with_plain_multi_bit_layers():
    inputs = keras.Input((12,))
    fixed = MultiBitDense(16, 2, 6, name="fixed", seed=0)(inputs)
    model = quantization.quantize(keras.Model(inputs, layers.Dense(3, name="head")(fixed)), 2, {"head": 8}).model
    model.compile("sgd", "mse")
    share = 12 * 16 / model.num_weights
    plan = schedule(2 * share + 1.3 * (1 - share), verbose=0)
    model.fit(X, Y["left"], epochs=plan.epochs(model), verbose=0, callbacks=[plan])
    assert model.average_bits <= plan.target_bits
    with pytest.raises(ValueError, match="`target_bits`"):
        schedule(0.5).epochs(model)
