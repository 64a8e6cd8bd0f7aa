import keras
import numpy as np
import pytest

from keras_efficient import layers, models


def gated(seed=0):
    """Convolution with three gates in a layer gate; gates follow the brightness of the image."""
    keras.utils.set_random_seed(seed)
    inner = layers.GatedConv2D(3, 3, padding="same", activation="relu", batch_normalization=True, name="inner")
    image = keras.Input((6, 6, 3), name="image")
    model = keras.Model(image, layers.LayerGate(inner, name="outer")(image))
    inner.gate_kernel.assign(np.array([[1.0, 0, 0]] * 3) / 3)  # the first gate is the mean brightness,
    inner.gate_bias.assign([0.0, 0.5, -1.0])  # the second always 0.5, the third always shut
    outer = model.get_layer("outer")
    outer.gate_kernel.assign([[1 / 3]] * 3)
    outer.gate_bias.assign([-0.25])  # turns away what is darker than 0.25
    return model


@pytest.fixture
def bright():
    """Images of brightness -0.5, 0.1, 0.5 and 0.75."""
    return np.ones((4, 6, 6, 3), "float32") * np.array([-0.5, 0.1, 0.5, 0.75], "float32")[:, None, None, None]


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_statistics_worked_out_by_hand(bright, batch_size):
    found = {layer.name: layer for layer in models.gate_statistics(gated(), bright, batch_size)}
    outer, inner = found["outer"], found["outer/inner"]
    assert (outer.gates, outer.reached, outer.open_rate, outer.deviation, outer.constant) == (1, 1, 0.5, 0.5, 0)
    assert outer.scale == pytest.approx((0.25 + 0.5) / 2)
    # Two of four images arrive; there the first two gates of three are open.
    assert (inner.gates, inner.reached, inner.deviation, inner.constant) == (3, 0.5, 0, 1)
    assert inner.open_rate == pytest.approx(2 / 3)
    assert inner.scale == pytest.approx((0.5 + 0.5 + 0.75 + 0.5) / 4)
    assert (outer.rates, inner.rates) == ((0.5,), (1, 1, 0))
    assert inner.values == pytest.approx(((0.5 + 0.75) / 2, 0.5, float("nan")), nan_ok=True)


def test_statistics_where_nobody_arrives(bright):
    outer, inner = models.gate_statistics(gated(), bright[:2])
    assert (outer.open_rate, inner.reached) == (0, 0)
    assert np.isnan([outer.scale, inner.open_rate, inner.scale]).all()


def test_batch_normalisation_has_the_mean_of_the_batches():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4), keras.layers.BatchNormalization()])
    batches = np.random.default_rng(0).normal(2, 3, (7, 16, 5)).astype("float32")
    dense, norm = model.layers
    before = keras.ops.convert_to_numpy(dense.kernel)
    models.reestimate_batch_normalization(model, batches)
    values = np.stack([batch @ before for batch in batches])
    np.testing.assert_allclose(norm.moving_mean, values.mean(axis=(0, 1)), rtol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, values.var(axis=1).mean(axis=0), rtol=1e-4)
    assert norm.momentum == 0.99
    np.testing.assert_array_equal(dense.kernel, before)


def test_hardening_freezes_gates_and_nothing_else(bright):
    model = gated()
    # The first gate of the brightest image alone stays above 0.6.
    models.harden(model, [bright[2:]] * 2, threshold=0.6)
    frozen = {weight.path.split("/")[-1] for weight in model.weights if not weight.trainable}
    assert {"gate_kernel", "gate_bias"} <= frozen
    assert {"kernel", "bias", "gamma", "beta"} <= {weight.path.split("/")[-1] for weight in model.trainable_weights}
    outer, inner = models.gate_statistics(model, bright)
    assert outer.open_rate == 0
    assert inner.reached == 0


def test_fine_tuning_leaves_the_gates(bright):
    model = models.harden(gated(), [bright])
    gates = [w for w in model.weights if "gate_" in w.path]
    before = [keras.ops.convert_to_numpy(w) for w in gates]
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(bright, np.zeros((4, 6, 6, 3)), epochs=2, verbose=0)
    for weight, value in zip(gates, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert any(np.any(keras.ops.convert_to_numpy(w) != 0) for w in model.weights if w.path.endswith("beta"))


def test_hardened_gates_stay_hard_in_files_and_models_that_train_again(bright, tmp_path):
    model = models.harden(gated(), [bright])
    model.save(tmp_path / "hard.keras")
    for network in (model, keras.saving.load_model(tmp_path / "hard.keras")):
        network.trainable = False
        network.trainable = True
        assert not [w.path for w in network.trainable_weights if "gate_" in w.path]
        assert [w.path for w in network.trainable_weights if w.path.endswith("kernel")]


def test_nothing_is_learned_through_hardened_gates(bright):
    model = gated()
    inner = model.get_layer("outer").layer
    inner.kernel.assign(np.zeros(inner.kernel.shape))
    inner.norm.beta.assign([1.0, 1.0, 1.0])  # what comes out is the gates, and the shortcut

    def slopes():
        x = keras.ops.convert_to_tensor(bright[3:])
        if keras.backend.backend() == "jax":
            import jax

            state = [
                [w.value for w in weights] for weights in (model.trainable_variables, model.non_trainable_variables)
            ]
            return jax.grad(lambda v: keras.ops.sum(model.stateless_call(*state, v, training=True)[0]))(x)
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = keras.ops.sum(model(x, training=True))
        return tape.gradient(y, x)

    assert np.abs(keras.ops.convert_to_numpy(slopes()) - 1).max() > 1e-3
    models.harden(model, [bright])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(slopes()), 1.0, atol=1e-6)  # of the shortcut alone


def test_hardened_concrete_gates_decide_in_training_as_in_inference(bright):
    gates = {"gate": "binary_concrete", "gate_kernel_initializer": "zeros"}
    bias = keras.initializers.Constant(0.4)
    model = keras.Sequential([keras.Input((6, 6, 3)), layers.GatedConv2D(8, 3, gate_bias_initializer=bias, **gates)])
    with pytest.raises(ValueError, match="`threshold`.*binary concrete"):
        models.harden(model, [bright], threshold=0.5)
    models.harden(model, [bright])
    for _ in range(5):  # of noisy gates four in ten would be shut
        model(bright, training=True)
    executed = keras.ops.convert_to_numpy(model.layers[0].executed_macs)
    np.testing.assert_allclose(executed, model.layers[0].dense_macs, rtol=1e-6)


def test_gates_that_are_always_open_lose_their_branch(bright, tmp_path):
    model = gated()
    assert models.remove_idle_branches(model, bright) == []  # shut for the two dark images
    assert model.get_layer("outer").branch
    before = keras.ops.convert_to_numpy(model(bright))
    assert models.remove_idle_branches(model, bright[2:]) == ["outer"]
    assert models.remove_idle_branches(model, bright[2:]) == []
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model(bright)), before)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not loaded.get_layer("outer").branch
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(loaded(bright)), before)


def test_bad_input(bright):
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="Expected a model with gated layers"):
        models.gate_statistics(plain, bright)
    with pytest.raises(ValueError, match="Expected a model with gated layers"):
        models.remove_idle_branches(plain, bright)
    with pytest.raises(ValueError, match="Expected a model with gated layers"):
        models.harden(plain, [bright])
    with pytest.raises(ValueError, match="at least one input"):
        models.gate_statistics(gated(), bright[:0])
    with pytest.raises(ValueError, match="at least one batch"):
        models.reestimate_batch_normalization(gated(), [])
    with pytest.raises(ValueError, match="threshold"):
        models.harden(gated(), [bright], threshold=1.0)
