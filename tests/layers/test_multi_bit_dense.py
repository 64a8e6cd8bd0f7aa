import zipfile

import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient import cost
from keras_efficient.layers import MultiBitDense
from keras_efficient.ops import multi_bit_dense
from keras_efficient.ops.context import calling_ops_with


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def inputs(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def test_by_hand():
    layer = MultiBitDense(1, bits=1, group_size=4, activation="relu")
    layer.build((None, 8))
    layer.sketch(np.asarray([[2.0]] * 2 + [[-2.0]] * 2 + [[3.0], [-5.0], [3.0], [-5.0]]))
    np.testing.assert_array_equal(array(layer.codes), [[0, 0, 1, 1], [0, 1, 0, 1]])
    np.testing.assert_array_equal(array(layer.scales), [[2], [4]])
    layer.bias.assign([0.5])
    x = np.asarray([[1, 0, 0, -1, 1, 0, 0, 0], [0] * 5 + [1, 0, 0]], "float32")
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
    assert layer.stored_bytes() == 6 * 2 * bits * (35 / 8 + 4) + 6 * 4
    assert layer.index_bytes == 12 * {1: 1, 2: 2, 4: 3}[bits] / 8


def test_any_activation_and_no_bias():
    dense = keras.layers.Dense(3, activation="softmax", use_bias=False)
    x = inputs(4, 20)
    dense(x)
    layer = MultiBitDense.from_dense(dense, 8)
    np.testing.assert_allclose(array(layer(x)), array(dense(x)), atol=0.02)
    assert layer.bias is None
    assert layer.get_config()["activation"] == "softmax"


def test_average_bits_counts_bases_with_a_scale():
    layer = MultiBitDense(2, bits=3, group_size=6)
    layer.build((None, 12))
    kernel = np.zeros((12, 2))
    kernel[:6, 0] = 1.0  # one basis is enough; the other groups need none
    layer.sketch(kernel)
    np.testing.assert_array_equal(layer.widths(), [[1, 0], [0, 0]])
    assert layer.average_bits == pytest.approx(1 / 4)
    assert layer.stored_bytes() == 6 / 8 + 4 + 2 * 4
    np.testing.assert_allclose(array(layer.float_kernel()), kernel)


def test_default_group_size_and_seed():
    layers = [MultiBitDense(3, seed=seed) for seed in (1, 1, 2)]
    for layer in layers:
        layer.build((None, 20))
    assert layers[0].codes.shape == (3, 20)
    assert np.array_equal(array(layers[0].scales), array(layers[1].scales))
    assert not np.array_equal(array(layers[0].scales), array(layers[2].scales))
    wide = MultiBitDense(3)
    wide.build((None, 100))
    assert wide.codes.shape == (6, 50)


def test_scales_and_bias_train_and_signs_stay():
    keras.utils.set_random_seed(0)
    layer = MultiBitDense(4)
    model = keras.Sequential([keras.Input((20,)), layer])
    model.compile(keras.optimizers.Adam(0.02), "mse")
    scales = array(layer.scales).copy()
    scales[0, 1] = 0
    layer.scales.assign(scales)
    before = array(layer.codes).copy()
    x = inputs(64, 20)
    history = model.fit(x, x[:, :4], epochs=10, verbose=0)
    assert history.history["loss"][-1] < 0.8 * history.history["loss"][0]
    np.testing.assert_array_equal(array(layer.codes), before)
    assert array(layer.scales)[0, 1] == 0  # a basis that is out stays out
    assert [variable.name for variable in layer.trainable_variables] == ["scales", "bias"]


def test_saves_packed_bits_and_loads_bit_equal(tmp_path):
    layer = MultiBitDense(64, bits=2, group_size=256)
    model = keras.Sequential([keras.Input((1024,)), layer])
    scales = array(layer.scales).copy()
    scales[::2, 1] = 0  # every other group has one basis
    scales[::3] = 0  # every third none
    layer.scales.assign(scales)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = inputs(3, 1024)
    np.testing.assert_array_equal(array(loaded(x)), array(model(x)))
    assert loaded.layers[0].get_config() == layer.get_config()
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        size = archive.getinfo("model.weights.h5").file_size
    assert layer.stored_bytes() < size < layer.stored_bytes() + 20_000 < 1024 * 64


def test_weights_that_do_not_fit_are_refused():
    layer = MultiBitDense(2, bits=2, group_size=8)
    layer.build((None, 16))
    store = {}
    layer.save_own_variables(store)
    layer.load_own_variables(store)
    for name in ("widths", "bits", "scales"):
        with pytest.raises(
            ValueError, match="Expected 4 groups|Expected up to 2 per group, with a scale and 8 bits each"
        ):
            layer.load_own_variables({**store, name: store[name][:-1]})
    with pytest.raises(ValueError, match="Expected up to 2 per group"):
        layer.load_own_variables({**store, "widths": np.full(4, 3, "uint8")})


def by_the_op(layer, *arguments):
    def call(op, tensors, attributes):
        assert op is multi_bit_dense
        return op.reference(*tensors, **vars(attributes))

    with calling_ops_with(call):
        return array(layer(*arguments))


@pytest.mark.parametrize("activation_bits", [0, 2])
def test_the_op_gives_what_the_layer_gives(activation_bits):
    layer = MultiBitDense(5, bits=3, group_size=7, activation="tanh", activation_bits=activation_bits)
    x = inputs(6, 21)
    layer(x, training=True)
    scales = array(layer.scales).copy()
    scales[::2, 1:] = 0
    scales[1] = 0
    layer.scales.assign(scales)
    np.testing.assert_allclose(by_the_op(layer, x), array(layer(x)), atol=1e-5)
    for most in (0, 1, 2):
        limit = np.asarray([most], "int32")
        np.testing.assert_allclose(by_the_op(layer, x, limit), array(layer(x, limit)), atol=1e-5)


def test_fewer_bases_are_the_first_ones():
    layer = MultiBitDense(4, bits=3)
    layer.build((None, 16))
    layer.compact()
    kernel = array(layer.float_kernel(np.asarray([1, 2], "int32")))
    one = array(layer.scales)[:, 0]
    np.testing.assert_allclose(np.abs(kernel), np.repeat(one[None, :], 16, axis=0), rtol=1e-6)
    np.testing.assert_array_equal(array(layer.float_kernel(np.asarray([8], "int32"))), array(layer.float_kernel()))


def test_multi_bit_inputs_follow_the_batches():
    layer = MultiBitDense(3, activation_bits=2)
    x = np.maximum(inputs(400, 20), 0) + 1.0
    for _ in range(20):
        layer(x, training=True)
    offset, *scales = array(layer.levels)
    values = np.sort([offset + a * scales[0] + b * scales[1] for a in (-1, 1) for b in (-1, 1)])
    nearest = values[np.abs(x[..., None] - values).argmin(axis=-1)]
    rounded = array(layer.quantized_inputs(ops.convert_to_tensor(x), False))
    np.testing.assert_allclose(rounded, nearest, atol=1e-5)
    error, levels = np.mean((rounded - x) ** 2), 1 / 3 * np.linspace(0, 3, 4) * (x.max() - 1) + 1
    assert error < 0.12 * np.var(x)
    assert error < np.mean(np.abs(x[..., None] - levels).min(axis=-1) ** 2)  # less than that of equal steps
    again = MultiBitDense.from_config(layer.get_config())
    assert again.activation_bits == 2


def test_mixed_precision():
    model = keras.Sequential([keras.Input((20,)), MultiBitDense(3, dtype="mixed_float16")])
    x = inputs(4, 20)
    y = model(x)
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    assert keras.backend.standardize_dtype(model.layers[0].codes.dtype) == "uint8"
    model.compile("sgd", "mse")
    assert np.isfinite(model.train_on_batch(x, np.zeros((4, 3))))


def test_cost():
    report = cost.profile(keras.Sequential([keras.Input((20,)), MultiBitDense(3, bits=1)]))
    assert report.macs == 60
    assert report.bytes == 3 * (20 / 8 + 4) + 3 * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": 0}, "`units`. Expected a positive integer. Received: 0"),
        ({"bits": 9}, "`bits`. Expected an integer from 1 to 8. Received: 9"),
        ({"group_size": 0}, "`group_size`. Expected a positive integer. Received: 0"),
        (
            {"activation_bits": 4},
            "`activation_bits`. Expected 0 (inputs as they are) or an integer up to 3. Received: 4",
        ),
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
    with pytest.raises(ValueError, match="`group_size`. Expected a divisor of the layer's 20 inputs. Received: 8"):
        MultiBitDense(3, group_size=8)(inputs(2, 20))
    with pytest.raises(ValueError, match="`dense`. Expected a built"):
        MultiBitDense.from_dense(keras.layers.Dense(3))
