import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient import cost
from keras_efficient import ops as ke_ops
from keras_efficient.layers import GatedConv2D, LayerGate
from keras_efficient.layers.dynamic import dynamic_layers, outermost

SAMPLES = 4 if keras.backend.backend() == "jax" else 8  # JAX compiles every branch anew
SPREAD = keras.initializers.RandomNormal(stddev=1.0, seed=4)


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def spread(layer, shortcut="identity", **arguments):
    return LayerGate(layer, shortcut, gate_kernel_initializer=SPREAD, gate_bias_initializer="zeros", **arguments)


def lc_block(filters=4, strides=1):
    x = keras.Input((6, 6, 4))
    gated = {"gate_kernel_initializer": SPREAD, "gate_bias_initializer": SPREAD}
    h, g = GatedConv2D(8, 3, strides, "same", activation="relu", return_gate=True, **gated)(x)
    return keras.Model(x, GatedConv2D(filters, 3, padding="same", gate=None)(h, input_gate=g))


def test_by_hand():
    layer = LayerGate(keras.layers.Dense(2, use_bias=False, kernel_initializer="ones"))
    x = np.asarray([[1.0, 3.0], [1.0, -3.0]], "float32")
    layer.build(x.shape)
    layer.gate_kernel.assign([[0.1], [0.1]])
    layer.gate_bias.assign([0.1])  # gates 0.5, and -0.1 -> 0
    np.testing.assert_allclose(array(layer(x)), [[1 + 2, 3 + 2], [1, -3]], rtol=1e-6)


def cases():
    yield "identity", (6, 6, 4), lambda: spread(lc_block())
    yield "projection", (6, 6, 4), lambda: spread(lc_block(7, 2), keras.layers.Conv2D(7, 1, strides=2))
    yield "no shortcut", (6, 6, 4), lambda: spread(keras.layers.Conv2D(5, 3), None)
    yield "rank 2", (6,), lambda: spread(keras.layers.Dense(6))
    yield "rank 3", (5, 6), lambda: spread(keras.layers.Conv1D(6, 3, padding="same"))
    yield "nested", (6, 6, 4), lambda: spread(keras.Sequential([spread(lc_block()), keras.layers.ReLU(), lc_block()]))


@pytest.mark.parametrize(("name", "shape", "make"), list(cases()), ids=[case[0] for case in cases()])
def test_soft_masked_and_skipped_agree(name, shape, make, tmp_path):
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input(shape), make()])
    x = images(SAMPLES, *shape)
    masked = array(model(x))
    np.testing.assert_allclose(array(model(x, training=True)), masked, atol=1e-5)
    executed = []
    with ke_ops.skipping():
        skipped = []
        for i in range(SAMPLES):
            with cost.counting(model) as events:
                skipped.append(array(model(x[i : i + 1])))
            executed.append(sum(float(array(event.executed).sum()) for event in events))
    np.testing.assert_allclose(np.concatenate(skipped), masked, atol=1e-5)
    assert len(set(executed)) > 1, "expected inputs that differ in what they need"

    layer = model.layers[0]
    profile = cost.profile(model, x)
    assert profile.expected_macs == pytest.approx(np.mean(executed))
    shortcut = layer.shortcut if isinstance(layer.shortcut, keras.layers.Layer) else None
    always = 6 * 6 * 4 * 7 / 4 if shortcut else 0  # the projection is outside of what is gated
    assert layer.dense_macs == pytest.approx(profile.macs - always)
    assert float(array(layer.executed_macs)) == pytest.approx(np.mean(executed) - always)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(array(loaded(x)), masked)


def test_shut_layer_is_not_computed():
    calls = []

    class Watched(keras.layers.Layer):
        def call(self, x):
            calls.append(1)
            return x * float("nan")

        def compute_output_shape(self, shape):
            return shape

    layer = LayerGate(
        Watched(), gate_kernel_initializer="zeros", gate_bias_initializer=keras.initializers.Constant(-1.0)
    )
    x = images(1, 6)
    layer.build(x.shape)
    with ke_ops.skipping():
        np.testing.assert_array_equal(array(layer(x)), x)
    if keras.backend.backend() == "tensorflow":  # JAX traces both branches
        assert not calls


def test_losses_charge_the_outer_gate_and_push_the_inner_ones():
    keras.utils.set_random_seed(2)
    layer = spread(lc_block())
    x = images(16, 6, 6, 4)
    layer(x)
    layers = dynamic_layers(layer)
    assert len(layers) == 3
    assert outermost(layers) == [layer]
    for each in layers:
        each.budget_coefficient.assign(1e-3)
    layer(x, training=True)
    losses = [float(array(loss)) for loss in layer.losses]
    assert sum(losses) == pytest.approx(1e-3 * float(array(layer.executed_macs)), rel=1e-5)
    inner = sum(float(array(each.executed_macs)) for each in layers[1:])
    assert float(array(layer.executed_macs)) == pytest.approx(inner + 4, rel=1e-5)  # and the gate net of four channels


def test_a_budget_alone_shuts_the_gates():
    keras.utils.set_random_seed(2)
    layer = LayerGate(lc_block())
    model = keras.Sequential([keras.Input((6, 6, 4)), layer])
    model.compile(keras.optimizers.Adam(0.03), loss=lambda y, p: ops.zeros(ops.shape(y)[:1]))
    for each in dynamic_layers(model):
        each.budget_coefficient.assign(1e-3)
    x = images(32, 6, 6, 4)
    model.fit(x, x, epochs=40, verbose=0, batch_size=32)
    assert cost.profile(model, x).expected_macs < 0.05 * layer.dense_macs


@pytest.mark.parametrize("gate", ["relu1", "binary_concrete"])
def test_without_a_branch_the_numbers_are_the_same(gate):
    keras.utils.set_random_seed(2)
    block = spread(lc_block(), gate=gate)
    plain = LayerGate(block.layer, branch=False, gate=gate)
    x = images(SAMPLES, 6, 6, 4)
    model = keras.Sequential([keras.Input(x.shape[1:]), block])
    model_without = keras.Sequential([keras.Input(x.shape[1:]), plain])
    plain.gate_kernel.assign(block.gate_kernel)
    plain.gate_bias.assign(block.gate_bias)
    masked = array(model(x))
    np.testing.assert_array_equal(array(model_without(x)), masked)
    with ke_ops.skipping():
        skipped = np.concatenate([array(model_without(x[i : i + 1])) for i in range(SAMPLES)])
    np.testing.assert_allclose(skipped, masked, atol=1e-5)
    open_channels = (array(inner_gates(block, x)) > 0).sum(axis=1)
    is_open = array(block.gate_values(ops.convert_to_tensor(x), False)[0])[:, 0] > 0
    assert 0 < is_open.sum() < SAMPLES
    # Each open channel reads four and is read by four, which nobody needs where the block scales them with 0.
    inner = 6 * 6 * 9 * np.mean(open_channels * (4 + 4 * is_open))
    net, inner_net = 4, 4 * 8
    assert cost.profile(model_without, x).expected_macs == pytest.approx(net + inner_net + inner)
    assert cost.profile(model, x).expected_macs < net + inner_net + inner
    assert plain.least_macs == net + inner_net  # shut channels of the first convolution spare the second, too
    assert block.least_macs == net


def inner_gates(block, x):
    """The gates of the block's first convolution."""
    return block.layer.layers[1].gate_values(ops.convert_to_tensor(x), False)[0]


def test_configuration_keeps_every_argument():
    layer = LayerGate(
        keras.layers.Dense(3, name="inner"),
        keras.layers.Dense(3, name="pass"),
        branch=False,
        gate_leak=0.5,
        name="gate",
    )
    assert not LayerGate.from_config(layer.get_config()).branch
    assert LayerGate.from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LayerGate("dense"), "`layer`. Expected a Keras layer or model. Received: 'dense'"),
        (lambda: LayerGate(keras.layers.Dense(3), "skip"), "`shortcut`. Expected 'identity', None or a Keras layer"),
        (
            lambda: LayerGate(keras.layers.Dense(3), gate=None),
            "`gate`. Expected 'relu1' or 'binary_concrete'. Received: None",
        ),
        (
            lambda: LayerGate(keras.layers.Dense(3))(images(2, 4)),
            "`shortcut`. Expected the output shape of `layer`, (2, 3)",
        ),
        (lambda: LayerGate(keras.layers.Dense(3))(images(2)), "`inputs`. Expected [batch, ..., channels]"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)


def test_skipping_needs_one_input():
    layer = LayerGate(keras.layers.Dense(4))
    with (
        ke_ops.skipping(),
        pytest.raises(ValueError, match="Expected a batch of one input to skip a layer. Received: 2"),
    ):
        layer(images(2, 4))


def test_gated_shortcut_counts_beside_the_gate():
    gate = LayerGate(keras.layers.Conv2D(4, 3, padding="same"), shortcut=GatedConv2D(4, 1))
    model = keras.Sequential([keras.Input((8, 8, 2)), gate])
    # 64 positions: 9 taps x 2 x 4 and the gate's 2; 1 tap x 2 x 4 and the gate net's 2 x 4.
    assert [layer.dense_macs for layer in outermost(dynamic_layers(model))] == [64 * 72 + 2, 64 * 8 + 8]
    assert cost.profile(model).macs == 64 * 72 + 2 + 64 * 8 + 8


def test_checkpoint_in_the_middle_of_a_budget_leaves_it_behind(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 2)), GatedConv2D(4, 3)])
    model.layers[0].budget_coefficient.assign(3.0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert float(ops.convert_to_numpy(loaded.layers[0].budget_coefficient.value)) == 0.0
