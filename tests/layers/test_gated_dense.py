import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient import cost
from keras_efficient import ops as ke_ops
from keras_efficient.layers import GatedDense

SAMPLES = 1 if keras.backend.backend() == "jax" else 3  # JAX compiles anew for every number of open units
SPREAD = keras.initializers.RandomNormal(stddev=0.5, seed=3)


def rows(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def two_layers(**arguments):
    """Gates that read four of twelve features, between two layers."""
    x, few = keras.Input((12,)), keras.Input((4,))
    first = GatedDense(
        10,
        activation="relu",
        return_gate=True,
        gate_kernel_initializer=SPREAD,
        gate_bias_initializer=SPREAD,
        **arguments,
    )
    h, gate = first(x, gate_inputs=few)
    return keras.Model([x, few], GatedDense(3, gate=None)(h, input_gate=gate))


def test_by_hand():
    layer = GatedDense(2, activation="relu")
    layer.build((None, 2))
    layer.kernel.assign([[[[2.0, -1.0], [1.0, 1.0]]]])
    layer.bias.assign([1.0, 5.0])
    layer.gate_kernel.assign([[0.2, 1.0], [0.0, 0.0]])
    layer.gate_bias.assign([0.1, -3.0])  # gates 0.5 and -1 -> 0
    np.testing.assert_allclose(array(layer(np.asarray([[2.0, 1.0]], "float32"))), [[3.0, 0.0]], rtol=1e-6)


def test_is_keras_dense_where_everything_is_open():
    layer, plain = GatedDense(5, gate=None), keras.layers.Dense(5)
    x = rows(4, 7)
    layer.build(x.shape)
    plain.build(x.shape)
    plain.set_weights([array(layer.kernel)[0, 0], rows(5)])
    layer.bias.assign(rows(5))
    np.testing.assert_allclose(array(layer(x)), array(plain(x)), atol=1e-5)


def test_modes_agree_and_count_the_same():
    model = two_layers()
    x = [rows(6, 12), rows(6, 4, seed=1)]
    masked = array(model(x))
    with ke_ops.skipping():
        skipped = np.concatenate([array(model([part[i : i + 1] for part in x])) for i in range(SAMPLES)])
    np.testing.assert_allclose(skipped, masked[:SAMPLES], atol=1e-5)
    np.testing.assert_allclose(array(model(x, training=True)), masked, atol=1e-5)
    profile = cost.profile(model, x)
    assert profile.macs == 12 * 10 + 10 * 3 + 4 * 10
    spent = sum(float(array(layer.executed_macs)) for layer in model.layers if isinstance(layer, GatedDense))
    assert spent == pytest.approx(profile.expected_macs)
    assert profile.expected_macs < profile.macs


def test_trains_saves_and_loads(tmp_path):
    model = two_layers(batch_normalization=True, kernel_regularizer="l2")
    x = [rows(16, 12), rows(16, 4)]
    model.compile("adam", "mse")
    losses = model.fit(x, np.zeros((16, 3)), epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_configuration_shapes_and_bad_arguments():
    layer = GatedDense(5, activation="relu6", use_bias=False, return_gate=True, gate="binary_concrete")
    assert not {"filters", "kernel_size", "strides", "padding", "dilation_rate"} & set(layer.get_config())
    copy = GatedDense.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    y, gate = copy(keras.Input((7,)))
    assert y.shape == gate.shape == (None, 5)
    with pytest.raises(ValueError, match="`units`. Expected a positive integer. Received: 0"):
        GatedDense(0)
    with pytest.raises(ValueError, match="`inputs`. Expected .batch, features. with known features"):
        GatedDense(3)(rows(2, 3, 4))
    with pytest.raises(ValueError, match="`input_gate`. Expected .batch, 4."):
        GatedDense(3)(rows(2, 4), input_gate=np.ones((2, 3), "float32"))
