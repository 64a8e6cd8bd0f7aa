import keras
import numpy as np
import pytest

from keras_efficient import cost, models, ops
from keras_efficient.layers import GatedConv2D, LayerGate


def spread(model, seed=0):
    """Gates of which about half are shut, other ones for other inputs."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.path.endswith("gate_kernel"):
            weight.assign(random.normal(0, 2.0, weight.shape))
        if weight.path.endswith("gate_bias"):
            weight.assign(random.normal(0.3, 0.5, weight.shape))
        if weight.path.endswith("moving_mean"):
            weight.assign(random.normal(0, 0.1, weight.shape))
    return model


@pytest.fixture
def images():
    return np.random.default_rng(1).uniform(0, 1, (12, 16, 16, 3)).astype("float32")


@pytest.mark.parametrize(
    ("arguments", "macs", "parameters"),
    [
        ({"depth": 20}, 40.8e6, 0.27e6),  # Krizhevsky's images through the published networks
        ({"depth": 18, "variant": "wide"}, 555.4e6, 11.17e6),
        ({"depth": 50, "variant": "imagenet", "input_shape": (224, 224, 3), "num_classes": 1000}, 4.1e9, 25.5e6),
    ],
)
def test_dense_networks_are_the_published_ones(arguments, macs, parameters):
    network = models.LCResNet(**arguments, layer_gates=False, channel_gates=False)
    counted = sum(int(np.prod(w.shape)) for w in network.trainable_weights)
    assert cost.profile(network).macs == pytest.approx(macs, rel=0.02)
    assert counted == pytest.approx(parameters, rel=0.02)


def test_without_gates_it_is_the_plain_network(images):
    plain, network = models.thin_resnet(8, 4), models.LCResNet(8, 4, layer_gates=False, channel_gates=False)
    random = np.random.default_rng(0)
    for weight in plain.weights:
        weight.assign(random.uniform(0.5, 1.5, weight.shape) if "variance" in weight.path else weight)
    sources = {weight.path: weight for weight in plain.weights}
    for weight in network.weights:
        *_, layer, name = ["", *weight.path.split("/")]
        if layer == "norm":
            layer = weight.path.split("/")[-3] + "_bn"
        elif layer.startswith("block") and not layer.endswith(("conv", "bn")):
            layer += "_conv"
        if f"{layer}/{name}" in sources:
            weight.assign(keras.ops.convert_to_numpy(sources.pop(f"{layer}/{name}")))
    assert not sources
    expected = plain.predict(np.resize(images, (12, 32, 32, 3)), verbose=0)
    np.testing.assert_allclose(
        network.predict(np.resize(images, (12, 32, 32, 3)), verbose=0), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("depth", "gates"), [(18, (True, True)), (18, (True, False)), (18, (False, True)), (50, (True, True))]
)
def test_masked_and_skipped_agree(images, gates, depth):
    keras.utils.set_random_seed(0)
    layer, channel = gates
    network = models.LCResNet(
        depth, 4, input_shape=(16, 16, 3), variant="wide", layer_gates=layer, channel_gates=channel
    )
    spread(network)
    masked = network.predict(images[:3], verbose=0)
    with ops.skipping():
        skipped = [keras.ops.convert_to_numpy(network(image[None], training=False)) for image in images[:3]]
    tolerance = 1e-5 if keras.backend.backend() == "tensorflow" else 1e-4  # 50 layers of other orders of summation
    np.testing.assert_allclose(np.concatenate(skipped), masked, rtol=tolerance, atol=tolerance)
    profile = cost.profile(network, images)
    assert 0.05 * profile.macs < profile.expected_macs < 0.95 * profile.macs


def test_concrete_gates_masked_and_skipped_agree(images):
    keras.utils.set_random_seed(0)
    network = spread(models.LCResNet(8, 4, input_shape=(16, 16, 3), gate="binary_concrete"))
    masked = network.predict(images[:6], verbose=0)
    with ops.skipping():
        skipped = [keras.ops.convert_to_numpy(network(image[None], training=False)) for image in images[:6]]
    np.testing.assert_allclose(np.concatenate(skipped), masked, rtol=1e-5, atol=1e-5)
    found = models.gate_statistics(network, images)
    assert {layer.scale for layer in found if layer.open_rate > 0} == {1.0}


def test_shut_block_is_its_shortcut(images):
    network = models.LCResNet(8, 4, input_shape=(16, 16, 3), gate_bias_initializer="zeros")
    block = keras.Model(network.input, network.get_layer("block_1").output)
    stem = keras.Model(network.input, network.get_layer("stem").output)
    for weight in network.weights:
        if weight.path.endswith("gate_kernel"):
            weight.assign(np.zeros(weight.shape))
    np.testing.assert_array_equal(block.predict(images, verbose=0), stem.predict(images, verbose=0))
    # Stem, three L-Nets, two projected shortcuts, logits; no C-Net of a block that is shut.
    rest = 16 * 16 * 27 * 4 + (4 + 4 + 8) + 8 * 8 * 4 * 8 + 4 * 4 * 8 * 16 + 16 * 10
    assert cost.profile(network, images).expected_macs == rest


def test_gates_and_their_options():
    network = models.LCResNet(8, 4, gate_threshold=0.2, layer_gates=True)
    gated = [layer for layer in network.layers if isinstance(layer, LayerGate)]
    assert len(gated) == 3
    convolutions = [layer for gate in gated for layer in gate.layer.layers if isinstance(layer, GatedConv2D)]
    assert [layer.gate for layer in convolutions] == ["relu1", None] * 3
    assert {layer.gate_threshold for layer in (*gated, *convolutions[::2])} == {0.2}


@pytest.mark.parametrize("gate", ["relu1", "binary_concrete"])
def test_dense_weights_come_along(images, gate):
    keras.utils.set_random_seed(0)
    dense = models.LCResNet(8, 4, input_shape=(16, 16, 3), layer_gates=False, channel_gates=False)
    network = models.LCResNet(
        8, 4, input_shape=(16, 16, 3), gate=gate, gate_kernel_initializer="zeros", gate_bias_initializer="ones"
    )
    names = models.copy_weights(dense, network)
    assert {"block_1_1", "block_2_shortcut_conv", "logits"} <= set(names)
    np.testing.assert_allclose(network.predict(images, verbose=0), dense.predict(images, verbose=0), atol=1e-5)
    with pytest.raises(ValueError, match="Expected a layer 'stem_conv'"):
        models.copy_weights(dense, models.LCResNet(8, 8, input_shape=(16, 16, 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 21}, "6 n \\+ 2"),
        ({"depth": 20, "variant": "wide"}, r"one of \[18, 34, 50, 101, 152\]"),
        ({"variant": "narrow"}, "Received: 'narrow'"),
        ({"width": 0}, "positive numbers"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.LCResNet(**arguments)
