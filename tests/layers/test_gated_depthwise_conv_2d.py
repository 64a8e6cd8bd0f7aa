import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient import cost
from keras_efficient import ops as ke_ops
from keras_efficient.layers import GatedConv2D, GatedDepthwiseConv2D

SAMPLES = 1 if keras.backend.backend() == "jax" else 5  # JAX compiles anew for every number of open channels
SPREAD = keras.initializers.RandomNormal(stddev=0.8, seed=3)
GATED = {"gate_kernel_initializer": SPREAD, "gate_bias_initializer": SPREAD}


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def inverted_block(**arguments):
    """Expansion with gates, depthwise convolution of the open channels, projection of these."""
    keras.utils.set_random_seed(5)
    x = keras.Input((6, 7, 3))
    h, gate = GatedConv2D(9, 1, activation="relu6", return_gate=True, **GATED, **arguments)(x)
    depthwise = GatedDepthwiseConv2D(3, 1, "same", 2, activation="relu", gate=None, return_gate=True, **arguments)
    h, gate = depthwise(h, input_gate=gate)
    return keras.Model(x, GatedConv2D(4, 1, gate=None, **arguments)(h, input_gate=gate))


@pytest.mark.parametrize("arguments", [{}, {"batch_normalization": True, "use_bias": False}])
def test_soft_masked_and_skipped_agree(arguments):
    model = inverted_block(**arguments)
    x = images(SAMPLES, 6, 7, 3)
    if arguments:  # moving statistics that differ from the start
        for _ in range(3):
            model(images(16, 6, 7, 3), training=True)
    masked = array(model(x))
    with ke_ops.skipping():
        skipped = np.concatenate([array(model(x[i : i + 1])) for i in range(SAMPLES)])
    np.testing.assert_allclose(skipped, masked, atol=1e-5)
    assert np.ptp(masked) > 0
    if not arguments:  # batch statistics are training's own
        np.testing.assert_allclose(array(model(x, training=True)), masked, atol=1e-5)


def test_shut_channels_are_zero_and_open_ones_keras_own():
    layer = GatedDepthwiseConv2D(3, 2, "same", activation="relu", batch_normalization=True, gate=None)
    x, gate = images(2, 6, 6, 4), np.asarray([[1, 0, 0.3, 1], [0, 0, 1, 0]], "float32")
    layer.build(x.shape)
    random = np.random.default_rng(0)
    for variable in layer.norm.variables:
        variable.assign(random.uniform(0.3, 2, 4))
    plain = keras.layers.DepthwiseConv2D(3, 2, "same")
    plain.build(x.shape)
    plain.set_weights([array(layer.kernel), array(layer.bias)])
    expected = array(ops.relu(layer.norm(plain(x), training=False))) * (gate != 0)[:, None, None, :]
    np.testing.assert_allclose(array(layer(x, input_gate=gate)), expected, atol=1e-5)
    assert (expected != 0).any()


def test_skipping_computes_open_channels_only(monkeypatch):
    keras.utils.set_random_seed(1)
    layer = GatedDepthwiseConv2D(3, depth_multiplier=2, **GATED)
    x = images(1, 6, 6, 6)
    layer.build(x.shape)
    seen = []
    conv = ops.depthwise_conv
    monkeypatch.setattr(
        ops, "depthwise_conv", lambda x, kernel, **kwargs: seen.append(kernel.shape) or conv(x, kernel, **kwargs)
    )
    mask = np.asarray([[1, 0, 1, 1, 1, 1]], "float32")
    with ke_ops.skipping(), ke_ops.recording() as events:
        y, gate = layer(x, input_gate=mask), layer.gate_values(x, False)[0]
    open_channels = np.count_nonzero(array(gate) * np.repeat(mask, 2, axis=1))
    assert 0 < open_channels < 10
    assert seen == [(3, 3, open_channels, 1)]
    assert y.shape == (1, 4, 4, 12)
    executed = [float(array(event.executed)[0]) for event in events if event.name == "ke.gated_depthwise_conv_2d"]
    assert executed == [16 * 9 * open_channels]
    layer.gate_bias.assign(np.full(12, -100.0))
    with ke_ops.skipping():
        assert not array(layer(x)).any()


def test_counts_the_same_in_training_and_inference():
    model = inverted_block()
    x = images(6, 6, 7, 3)
    expected = cost.profile(model, x).expected_macs
    assert cost.profile(model).macs == 42 * (3 * 9 + 9 * 18 + 18 * 4) + 3 * 9
    model(x, training=True)
    spent = sum(float(array(layer.executed_macs)) for layer in model.layers[1:])
    assert spent == pytest.approx(expected)
    assert expected < cost.profile(model).macs


def test_gradients_reach_shut_channels():
    layer = GatedDepthwiseConv2D(1, gate=None)
    x, gate = keras.Input((4, 4, 3)), keras.Input((3,))
    model = keras.Model([x, gate], layer(x, input_gate=gate))
    model.compile("sgd", "mse")
    before = array(layer.bias).copy()
    model.train_on_batch([images(2, 4, 4, 3), np.asarray([[1, 0, 0], [1, 0, 1]], "float32")], np.ones((2, 4, 4, 3)))
    assert (array(layer.bias) != before).all()


def test_configuration_shapes_and_bad_arguments():
    layer = GatedDepthwiseConv2D((3, 1), 2, "same", 2, activation="relu6", use_bias=False, gate_threshold=0.2)
    copy = GatedDepthwiseConv2D.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    y = copy(keras.Input((None, None, 3)))
    assert y.shape == (None, None, None, 6)
    for arguments, message in [
        ({"depth_multiplier": 0}, "`depth_multiplier`. Expected a positive integer. Received: 0"),
        ({"strides": (1, 2)}, "Expected the same stride in both dimensions. Received: 1 and 2"),
        ({"kernel_size": 0}, "`kernel_size`"),
    ]:
        with pytest.raises(ValueError) as caught:
            GatedDepthwiseConv2D(**{"kernel_size": 3, **arguments})
        assert message in str(caught.value)
    with pytest.raises(ValueError, match="`inputs`. Expected .batch, height, width, channels."):
        GatedDepthwiseConv2D(3)(images(2, 6))
    with pytest.raises(ValueError, match="`input_gate`. Expected .batch, 3."):
        GatedDepthwiseConv2D(3)(images(2, 6, 6, 3), input_gate=np.ones((2, 4), "float32"))
