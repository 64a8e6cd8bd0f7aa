import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_efficient import cost
from keras_efficient import ops as ke_ops
from keras_efficient.layers import GatedConv2D

SAMPLES = 2 if keras.backend.backend() == "jax" else 5  # JAX compiles anew for every number of open channels
SPREAD = keras.initializers.RandomNormal(stddev=0.8, seed=3)


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def spread(filters, kernel_size=3, **arguments):
    """A layer whose gates are open and shut, depending on the input."""
    keras.utils.set_random_seed(1)
    return GatedConv2D(filters, kernel_size, gate_kernel_initializer=SPREAD, gate_bias_initializer=SPREAD, **arguments)


def test_by_hand():
    layer = GatedConv2D(2, 1, activation="relu")
    x = np.asarray([[[[1.0], [3.0]]]], "float32")  # one row of two pixels, mean 2
    layer.build(x.shape)
    layer.kernel.assign([[[[2.0, -1.0]]]])
    layer.bias.assign([1.0, 5.0])
    layer.gate_kernel.assign([[0.2, 1.0]])
    layer.gate_bias.assign([0.1, -3.0])  # gates 0.5, and -1 -> 0
    np.testing.assert_allclose(array(layer(x)), [[[[1.5, 0], [3.5, 0]]]], rtol=1e-6)


def test_threshold_shuts_small_gates():
    layer = GatedConv2D(1, 1, gate_threshold=0.3, gate_kernel_initializer="zeros", return_gate=True)
    x = images(1, 2, 2, 1)
    layer.build(x.shape)
    for bias, expected in ((0.3, 0.0), (0.31, 0.31), (2.0, 1.0)):
        layer.gate_bias.assign([bias])
        assert array(layer(x)[1]) == pytest.approx(expected)


def block(gate_from_block_input=True, **arguments):
    """An LC block: gates of the first convolution are read by the second."""
    keras.utils.set_random_seed(5)
    x = keras.Input((7, 6, 3))
    gated = {"gate_kernel_initializer": SPREAD, "gate_bias_initializer": SPREAD, "padding": "same"}
    h = GatedConv2D(8, 3, activation="relu6", **gated, **arguments)(x)
    kwargs = {"gate_inputs": x} if gate_from_block_input else {}
    h, g = GatedConv2D(9, 3, strides=2, activation="relu", return_gate=True, **gated, **arguments)(h, **kwargs)
    y = GatedConv2D(4, (3, 1), gate=None, padding="same", dilation_rate=(2, 1), **arguments)(h, input_gate=g)
    return keras.Model(x, y)


@pytest.mark.parametrize("arguments", [{}, {"batch_normalization": True, "momentum": 0.5, "use_bias": False}])
def test_soft_masked_and_skipped_agree(arguments):
    model = block(**arguments)
    x = images(SAMPLES, 7, 6, 3)
    if arguments:  # moving statistics that differ from the start
        for _ in range(3):
            model(images(16, 7, 6, 3), training=True)
    masked = array(model(x))
    with ke_ops.skipping():
        skipped = np.concatenate([array(model(x[i : i + 1])) for i in range(SAMPLES)])
    np.testing.assert_allclose(skipped, masked, atol=1e-5)
    assert np.ptp(masked) > 0
    if not arguments:  # batch statistics are training's own
        np.testing.assert_allclose(array(model(x, training=True)), masked, atol=1e-5)


def test_skipping_computes_open_channels_only(monkeypatch):
    layer = spread(12)
    x = images(1, 6, 6, 4)
    layer.build(x.shape)
    seen = []
    conv = ops.conv
    monkeypatch.setattr(ops, "conv", lambda x, kernel, **kwargs: seen.append(kernel.shape) or conv(x, kernel, **kwargs))
    with ke_ops.skipping(), ke_ops.recording() as events:
        y, gate = layer(x, input_gate=np.asarray([[1, 0, 1, 1]], "float32")), layer.gate_values(x, False)[0]
    open_channels = np.count_nonzero(array(gate))
    assert 0 < open_channels < 12
    assert seen == [(3, 3, 3, open_channels)]
    assert y.shape == (1, 4, 4, 12)
    executed = [float(array(e.executed)[0]) for e in events if e.name == "ke.gated_conv_2d"]
    assert executed == [16 * 9 * 3 * open_channels]


@pytest.mark.parametrize(("gates_in", "gates_out"), [("shut", "open"), ("open", "shut"), ("shut", "shut")])
def test_skipping_with_nothing_open(gates_in, gates_out):
    layer = GatedConv2D(5, 3, activation="relu", gate_kernel_initializer="zeros")
    x = np.zeros((1, 4, 4, 2), "float32")
    layer.build(x.shape)
    layer.bias.assign([1, -1, 2, 0, 3])
    layer.gate_bias.assign(np.full(5, 0.5 if gates_out == "open" else -1.0))
    gate = np.full((1, 2), float(gates_in == "open"), "float32")
    with ke_ops.skipping():
        skipped = array(layer(x, input_gate=gate))
    np.testing.assert_allclose(skipped, array(layer(x, input_gate=gate)), atol=1e-6)


def test_input_gate_hides_channels_from_training_too():
    layer = GatedConv2D(3, 3, gate=None)
    x, gate = images(2, 5, 5, 4), np.asarray([[1, 0, 0.3, 1], [0, 0, 1, 0]], "float32")
    hidden = x * (gate != 0)[:, None, None, :]
    expected = array(layer(hidden))
    np.testing.assert_allclose(array(layer(x, input_gate=gate)), expected, atol=1e-6)
    np.testing.assert_allclose(array(layer(x, input_gate=gate, training=True)), expected, atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_batch_normalisation_folds(seed):
    rng = np.random.default_rng(seed)
    layer = GatedConv2D(4, 3, gate=None, batch_normalization=True, padding="same")
    layer.build((None, 5, 5, 2))
    for variable in layer.norm.variables:
        variable.assign(rng.uniform(0.3, 2, 4))
    x = rng.normal(size=(2, 5, 5, 2)).astype("float32")
    plain = ops.conv(x, layer.kernel, padding="same") + layer.bias
    np.testing.assert_allclose(array(layer(x)), array(layer.norm(plain, training=False)), atol=1e-4)


def test_executed_macs_equal_what_the_op_records():
    layer = spread(8)
    x = images(6, 6, 6, 3)
    layer(x)
    with ke_ops.recording() as events:
        layer(x)
    executed = np.mean(sum(array(event.executed) for event in events))
    layer(x, training=True)
    assert layer.dense_macs == 16 * 9 * 3 * 8 + 3 * 8 == sum(event.dense for event in events)
    assert float(array(layer.executed_macs)) == pytest.approx(executed)
    assert executed < layer.dense_macs
    model = keras.Sequential([keras.Input((6, 6, 3)), layer])
    assert cost.profile(model, x).expected_macs == pytest.approx(executed)


def test_loss_is_coefficient_times_executed_macs():
    layer = spread(8)
    x = images(6, 6, 6, 3)
    layer(x, training=True)
    assert float(array(sum(layer.losses))) == 0
    layer.budget_coefficient.assign(0.01)
    layer(x, training=True)
    assert float(array(sum(layer.losses))) == pytest.approx(0.01 * float(array(layer.executed_macs)), rel=1e-5)
    layer(x)
    assert not layer.losses


def test_saves_and_loads_bit_equal(tmp_path):
    model = block(batch_normalization=True)
    x = images(3, 7, 6, 3)
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(array(loaded(x)), array(model(x)))


def test_configuration_keeps_every_argument():
    layer = GatedConv2D(
        3, (3, 1), (2, 1), "same", activation="relu6", use_bias=False, return_gate=True, batch_normalization=True,
        momentum=0.7, epsilon=0.1, kernel_regularizer="l2", kernel_constraint="non_neg", gate_threshold=0.2,
        gate_leak=0.3,
    )  # fmt: skip
    assert GatedConv2D.from_config(layer.get_config()).get_config() == layer.get_config()


def test_symbolic_shapes_with_open_sizes():
    x = keras.Input((None, None, 3))
    y, gate = GatedConv2D(5, 3, return_gate=True)(x)
    assert y.shape == (None, None, None, 5)
    assert gate.shape == (None, 5)
    model = keras.Model(x, y)
    assert model(images(2, 9, 8, 3)).shape == (2, 7, 6, 5)
    assert model(images(2, 5, 5, 3), training=True).shape == (2, 3, 3, 5)
    with pytest.raises(ValueError, match="Expected a layer built for static dimensions"):
        _ = model.layers[1].dense_macs


def test_mixed_precision_trains():
    x = keras.Input((6, 6, 3))
    h = GatedConv2D(4, 3, batch_normalization=True, activation="relu", dtype="mixed_float16")(x)
    y = keras.layers.Dense(2, dtype="float32")(keras.layers.Flatten()(h))
    model = keras.Model(x, y)
    model.compile("sgd", "mse")
    assert np.isfinite(model.train_on_batch(images(4, 6, 6, 3), np.ones((4, 2))))
    assert h.dtype == "float16"
    kernel, _ = model.layers[1].folded_weights()
    assert keras.backend.standardize_dtype(kernel.dtype) == "float32"


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = GatedConv2D(4, 3)
        self.head = keras.layers.Dense(2)

    def call(self, x, training=None):
        return self.head(ops.mean(self.conv(x, training=training), axis=(1, 2)))


@pytest.mark.parametrize("kind", ["sequential", "subclassed"])
def test_trains_in_other_kinds_of_models(kind):
    model = Subclassed()
    if kind == "sequential":
        model = keras.Sequential([GatedConv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    x, y = images(16, 6, 6, 3), np.zeros((16, 2))
    history = model.fit(x, y, epochs=3, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    kernel = next(v for v in model.trainable_variables if v.name == "gate_kernel")
    assert np.abs(array(kernel)).max() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 0}, "`filters`. Expected a positive integer. Received: 0"),
        ({"kernel_size": (3, 0)}, "`kernel_size`. Expected one or two positive integers"),
        ({"strides": "2"}, "`strides`. Expected"),
        ({"padding": "full"}, "`padding`. Expected 'valid' or 'same'. Received: 'full'"),
        ({"activation": "tanh"}, "`activation`. Expected None or one of"),
        ({"gate": "sigmoid"}, "Received: 'sigmoid'"),
        ({"gate_threshold": 1.0}, "`gate_threshold`. Expected a number in [0, 1). Received: 1.0"),
        ({"gate_leak": -0.1}, "`gate_leak`. Expected a number in [0, 1]. Received: -0.1"),
        ({"strides": 2, "dilation_rate": 2}, "Expected strides of 1 with dilation"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as error:
        GatedConv2D(**{"filters": 4, "kernel_size": 3, **arguments})
    assert message in str(error.value)


def test_bad_inputs():
    with pytest.raises(ValueError, match=r"`inputs`. Expected \[batch, height, width, channels\]"):
        GatedConv2D(4, 3)(images(2, 5, 3))
    with pytest.raises(ValueError, match=r"`input_gate`. Expected \[batch, 3\]"):
        GatedConv2D(4, 3)(images(2, 5, 5, 3), input_gate=np.ones((2, 4), "float32"))
    with pytest.raises(ValueError, match="Expected height and width that a kernel"):
        GatedConv2D(4, 3)(images(2, 2, 5, 3))
    layer = GatedConv2D(4, 3)
    with pytest.raises(ValueError, match="not built yet"):
        _ = layer.dense_macs
    with (
        ke_ops.skipping(),
        pytest.raises(ValueError, match="Expected a batch of one input to skip channels. Received: 2"),
    ):
        layer(images(2, 5, 5, 3))
