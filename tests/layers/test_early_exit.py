import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient.layers import EarlyExit, MultiBitDense


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def test_passes_features_on_in_a_sequential_model():
    model = keras.Sequential([keras.Input((4, 4, 3)), EarlyExit(10), keras.layers.Flatten()])
    x = images(2, 4, 4, 3)
    np.testing.assert_array_equal(array(model(x)), x.reshape(2, -1))
    assert EarlyExit(10)(x).shape == x.shape


@pytest.mark.parametrize("pool", ["average", "average_max"])
def test_branch_by_hand(pool):
    layer = EarlyExit(2, pool=pool)
    x = np.asarray([[[[1.0], [2.0]], [[3.0], [6.0]]]], "float32")  # mean 3, largest 6
    layer.build(x.shape)
    layer.unit[0].kernel.assign([[1.0, -1.0]] if pool == "average" else [[1.0, -1.0], [10.0, 0.0]])
    np.testing.assert_allclose(array(layer.branch(x)), [[3.0, -3.0] if pool == "average" else [63.0, -3.0]])


def test_branch_of_flat_features():
    layer = EarlyExit(3, pool="average_max")
    x = images(2, 5)
    layer.build(x.shape)
    np.testing.assert_allclose(array(layer.branch(x)), array(layer.unit[0](x)))


def test_hidden_units_dropout_and_a_head_of_ones_own():
    layer = EarlyExit(3, hidden_units=7, dropout=0.5, label_layer=MultiBitDense(3, 1))
    x = images(4, 2, 2, 5)
    layer.build(x.shape)
    assert [type(part).__name__ for part in layer.unit] == ["Dropout", "Dense", "MultiBitDense"]
    np.testing.assert_array_equal(array(layer.branch(x)), array(layer.branch(x)))
    assert np.abs(array(layer.branch(x, training=True)) - array(layer.branch(x))).max() > 0


def test_gradient_scale():
    x = images(2, 3, 3, 4)
    gradients = []
    for scale in (1.0, 0.25):
        keras.utils.set_random_seed(0)
        layer = EarlyExit(2, gradient_scale=scale)
        layer.build(x.shape)
        if keras.backend.backend() == "jax":
            import jax

            def loss(v, layer=layer):
                return ops.sum(layer.branch(v, training=True))

            gradients.append(np.asarray(jax.grad(loss)(x)))
        else:
            import tensorflow as tf

            v = tf.constant(x)
            with tf.GradientTape() as tape:
                tape.watch(v)
                total = ops.sum(layer.branch(v, training=True))
            gradients.append(tape.gradient(total, v).numpy())
        np.testing.assert_array_equal(array(layer.branch(x, training=True)), array(layer.branch(x)))
    np.testing.assert_allclose(gradients[1], 0.25 * gradients[0], rtol=1e-6)


def test_saves_and_loads_bit_equal(tmp_path):
    x = images(3, 4, 4, 3)
    exit_layer = EarlyExit(5, "average_max", hidden_units=6, label_layer=MultiBitDense(5, 3))
    keras.Sequential([keras.Input((4, 4, 3)), exit_layer]).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").layers[0]
    np.testing.assert_array_equal(array(loaded.branch(x)), array(exit_layer.branch(x)))
    for key, value in exit_layer.get_config().items():
        if key != "label_layer":
            assert loaded.get_config()[key] == value
    assert loaded.label_layer.get_config() == exit_layer.label_layer.get_config()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "`num_classes`. Expected a positive integer. Received: 0"),
        ({"pool": "max"}, "`pool`. Expected 'average' or 'average_max'. Received: 'max'"),
        ({"hidden_units": -2}, "`hidden_units`. Expected a positive integer. Received: -2"),
        ({"dropout": 1.0}, "`dropout`. Expected a number in [0, 1). Received: 1.0"),
        ({"gradient_scale": -1}, "`gradient_scale`. Expected a number of at least 0. Received: -1"),
        ({"label_layer": "dense"}, "`label_layer`. Expected a Keras layer. Received: 'dense'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as error:
        EarlyExit(**{"num_classes": 3, **arguments})
    assert message in str(error.value)


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"`inputs`. Expected \[batch, ..., channels\]"):
        EarlyExit(3)(images(2))
    with pytest.raises(
        ValueError, match=r"`label_layer`. Expected outputs of shape \[batch, 3\]. Received: \(None, 4\)"
    ):
        EarlyExit(3, label_layer=keras.layers.Dense(4))(images(2, 5))
