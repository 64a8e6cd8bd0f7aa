import zipfile

import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient import cost
from keras_efficient.layers import MultiBitDense


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def inputs(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def test_by_hand():
    layer = MultiBitDense(1, bits=1, group_size=8, activation="relu")
    layer.build((None, 10))  # a full group and one of two inputs
    layer.sketch(np.asarray([[2.0]] * 4 + [[-2.0]] * 4 + [[3.0], [-5.0]]))
    np.testing.assert_array_equal(array(layer.bits), [[[[0b11110000]], [[0b10]]]])
    np.testing.assert_array_equal(array(layer.scales), [[[2], [4]]])
    layer.bias.assign([0.5])
    x = np.asarray([[1, 0, 0, 0, 0, 0, 0, -1, 1, 0], [0] * 8 + [0, 1]], "float32")
    np.testing.assert_allclose(array(layer(x)), [[2 + 2 + 4 + 0.5], [0]])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_from_dense(bits):
    dense = keras.layers.Dense(6, activation="relu", bias_initializer="uniform")
    x = inputs(5, 70)
    expected = array(dense(x))
    layer = MultiBitDense.from_dense(dense, bits)
    kernel = array(dense.kernel)
    residual = np.linalg.norm(array(layer.float_kernel()) - kernel) / np.linalg.norm(kernel)
    assert residual < {1: 0.65, 2: 0.35, 4: 0.1}[bits]
    if bits == 4:
        np.testing.assert_allclose(array(layer(x)), expected, atol=0.5)
    np.testing.assert_allclose(
        array(layer(x)), array(ops.relu(ops.matmul(x, layer.float_kernel()) + dense.bias)), atol=1e-5
    )
    assert layer.average_bits == bits
    assert layer.stored_bytes() == 6 * 2 * bits * (64 // 8 + 4) + 6 * 4


def test_average_bits_counts_bases_with_a_scale():
    layer = MultiBitDense(2, bits=3, group_size=8)
    layer.build((None, 12))
    kernel = np.zeros((12, 2))
    kernel[:8, 0] = 1.0  # one basis is enough; the other groups need none
    layer.sketch(kernel)
    assert layer.average_bits == pytest.approx(8 / 24)
    np.testing.assert_allclose(array(layer.float_kernel()), kernel)


def test_default_group_size_and_seed():
    layers = [MultiBitDense(3, seed=seed) for seed in (1, 1, 2)]
    for layer in layers:
        layer.build((None, 20))
    assert layers[0].bits.shape == (3, 1, 2, 3)
    assert np.array_equal(array(layers[0].scales), array(layers[1].scales))
    assert not np.array_equal(array(layers[0].scales), array(layers[2].scales))
    wide = MultiBitDense(3)
    wide.build((None, 100))
    assert wide.bits.shape == (3, 2, 2, 8)


def test_scales_and_bias_train_and_signs_stay():
    keras.utils.set_random_seed(0)
    layer = MultiBitDense(4)
    model = keras.Sequential([keras.Input((20,)), layer])
    model.compile(keras.optimizers.Adam(0.02), "mse")
    before = array(layer.bits).copy()
    x = inputs(64, 20)
    history = model.fit(x, x[:, :4], epochs=10, verbose=0)
    assert history.history["loss"][-1] < 0.8 * history.history["loss"][0]
    np.testing.assert_array_equal(array(layer.bits), before)
    assert [variable.name for variable in layer.trainable_variables] == ["scales", "bias"]


def test_saves_packed_bits_and_loads_bit_equal(tmp_path):
    layer = MultiBitDense(64, bits=2, group_size=256)
    model = keras.Sequential([keras.Input((1024,)), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = inputs(3, 1024)
    np.testing.assert_array_equal(array(loaded(x)), array(model(x)))
    assert loaded.layers[0].get_config() == layer.get_config()
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        size = archive.getinfo("model.weights.h5").file_size
    assert layer.stored_bytes() < size < layer.stored_bytes() + 20_000 < 1024 * 64 * 4


def test_mixed_precision():
    model = keras.Sequential([keras.Input((20,)), MultiBitDense(3, dtype="mixed_float16")])
    x = inputs(4, 20)
    y = model(x)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    assert keras.backend.standardize_dtype(model.layers[0].bits.dtype) == "uint8"
    model.compile("sgd", "mse")
    assert np.isfinite(model.train_on_batch(x, np.zeros((4, 3))))


def test_cost():
    report = cost.profile(keras.Sequential([keras.Input((20,)), MultiBitDense(3, bits=1)]))
    assert report.macs == 60
    assert report.bytes == 3 * (3 + 4) + 3 * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": 0}, "`units`. Expected a positive integer. Received: 0"),
        ({"bits": 9}, "`bits`. Expected an integer from 1 to 8. Received: 9"),
        ({"group_size": 12}, "`group_size`. Expected a positive multiple of 8. Received: 12"),
        ({"activation": "tanh"}, "`activation`. Expected None or one of"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as error:
        MultiBitDense(**{"units": 3, **arguments})
    assert message in str(error.value)


def test_bad_kernels_and_layers():
    layer = MultiBitDense(3)
    with pytest.raises(ValueError, match="`kernel`. Expected a built layer"):
        layer.sketch(np.zeros((4, 3)))
    layer.build((None, 4))
    with pytest.raises(ValueError, match=r"`kernel`. Expected shape \(4, 3\). Received: shape \(3, 4\)"):
        layer.sketch(np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"`inputs`. Expected \[batch, features\]"):
        MultiBitDense(3)(inputs(2, 3, 4))
    with pytest.raises(ValueError, match="`dense`. Expected a built"):
        MultiBitDense.from_dense(keras.layers.Dense(3))
    tanh = keras.layers.Dense(3, activation="tanh")
    tanh.build((None, 4))
    with pytest.raises(ValueError, match="`activation`. Expected None or one of"):
        MultiBitDense.from_dense(tanh)
