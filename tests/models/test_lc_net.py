"""`lc_net` on thin ResNets, on blocks like those of MobileNetV2 and ResNetV2, and on graphs made for one thing each."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_efficient import cost, models, ops
from keras_efficient.layers import GatedConv2D, GatedDepthwiseConv2D, LayerGate
from keras_efficient.layers.dynamic import dynamic_layers, outermost


def images(count=3, size=32, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, (count, size, size, 3)).astype("float32")


def trained(model, seed=0):
    """Statistics and scales as after a training, not as in the beginning."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.path.endswith(("moving_mean", "beta", "bias")):
            weight.assign(random.normal(0, 0.1, weight.shape))
        if weight.path.endswith(("moving_variance", "gamma")):
            weight.assign(random.uniform(0.7, 1.3, weight.shape))
    return model


def spread(model, seed=0):
    """Gates of which about half are shut, other ones for other inputs."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.path.endswith("gate_kernel"):
            weight.assign(random.normal(0, 2.0, weight.shape))
        if weight.path.endswith("gate_bias"):
            weight.assign(random.normal(0.3, 0.5, weight.shape))
    return model


def inverted():
    """The blocks of MobileNetV2: one that halves the image, which stays as it is, and two residual ones."""
    x = inputs = keras.Input((32, 32, 3))
    x = layers.ReLU(6)(layers.Conv2D(8, 3, strides=2, padding="same")(x))
    for number, stride in enumerate((2, 1, 1)):
        h = layers.Conv2D(24, 1, use_bias=False, name=f"expand_{number}")(x)
        h = layers.ReLU(6)(layers.BatchNormalization(momentum=0.9)(h))
        h = layers.ZeroPadding2D(((0, 1), (0, 1)))(h) if stride == 2 else h
        depthwise = layers.DepthwiseConv2D(
            3, stride, "same" if stride == 1 else "valid", use_bias=False, name=f"depthwise_{number}"
        )
        h = layers.ReLU(6, name=f"relu_{number}")(layers.BatchNormalization()(depthwise(h)))
        h = layers.BatchNormalization()(layers.Conv2D(8, 1, use_bias=False)(h))
        x = h if stride == 2 else layers.Add()([x, h])
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def of_kind(network, kind):
    """Layers of a class, the ones inside others too."""
    return [layer for layer in network._flatten_layers() if type(layer) is kind]


NETWORKS = {
    "thin_resnet": lambda: models.thin_resnet(8, 4),
    "inverted": inverted,
    "preactivated": lambda: preactivated(),
    "nested": lambda: keras.Sequential(
        [keras.Input((32, 32, 3)), models.thin_resnet(8, 4, num_classes=6), layers.Dense(3)], name="nested"
    ),
}


def preactivated():
    """Blocks of ResNetV2's kind, added with `+`: batch normalisation first, the projection behind it."""
    x = inputs = keras.Input((32, 32, 3))
    for stride in (1, 2):
        before = layers.ReLU()(layers.BatchNormalization()(x))
        h = layers.Conv2D(6, 1, use_bias=False)(before)
        h = layers.Activation("relu")(layers.BatchNormalization(epsilon=1e-5)(h))
        h = layers.ZeroPadding2D(1)(h)
        h = layers.Conv2D(5, 3, strides=stride, activation="relu6")(h)
        h = layers.Conv2D(8, 1)(layers.Dropout(0.3)(h))
        x = layers.Conv2D(8, 1, strides=stride)(before) + h
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("gates", [(True, True), (True, False), (False, True)], ids=["LC", "L", "C"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_open_gates_compute_what_the_model_computed(kind, gates):
    layer_gates, channel_gates = gates
    model = trained(NETWORKS[kind]())
    before = [keras.ops.convert_to_numpy(weight) for weight in model.weights]
    x = images()
    expected = model.predict(x, verbose=0)
    network = models.lc_net(model, layer_gates, channel_gates)
    np.testing.assert_allclose(network.predict(x, verbose=0), expected, atol=1e-5)
    assert network.name == f"{model.name}_lc"
    assert bool(of_kind(network, LayerGate)) is layer_gates
    assert any(layer.gate for layer in of_kind(network, GatedConv2D)) is channel_gates
    for weight in network.weights:
        weight.assign(np.zeros(weight.shape))
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), value)
    np.testing.assert_array_equal(model.predict(x, verbose=0), expected)


@pytest.mark.parametrize("kind", ["thin_resnet", "inverted", "preactivated"])
def test_masked_and_skipped_agree_and_count_the_same(kind):
    network = spread(models.lc_net(trained(NETWORKS[kind]())))
    x = images(1 if keras.backend.backend() == "jax" else 3)  # JAX compiles anew for every number of open channels
    masked = network.predict(x, verbose=0)
    outputs, executed = [], []
    for image in x:
        with ops.skipping(), cost.counting(network) as events:
            outputs.append(keras.ops.convert_to_numpy(network(image[None], training=False)))
        executed.append(sum(float(keras.ops.convert_to_numpy(event.executed).sum()) for event in events))
    np.testing.assert_allclose(np.concatenate(outputs), masked, rtol=1e-5, atol=1e-5)
    profile = cost.profile(network, x)
    assert np.mean(executed) == pytest.approx(profile.expected_macs, rel=1e-5)
    assert 0.05 * profile.macs < profile.expected_macs < 0.95 * profile.macs
    # what a budget reads after a step of training on these inputs, statistics of batches aside
    for layer in of_kind(network, layers.BatchNormalization):
        layer.trainable = False
    network(x, training=True)
    gated = outermost(dynamic_layers(network))
    static = profile.macs - sum(layer.dense_macs for layer in gated)
    spent = sum(float(keras.ops.convert_to_numpy(layer.executed_macs)) for layer in gated)
    assert static + spent == pytest.approx(profile.expected_macs, rel=0.01)


def test_macs_by_hand():
    """A block of 1x1 (4 to 6 channels), depthwise 3x3 and 1x1 (6 to 4) at 5 x 5 positions."""
    x = inputs = keras.Input((5, 5, 4))
    h = layers.ReLU(6)(layers.BatchNormalization()(layers.Conv2D(6, 1, use_bias=False, name="expand")(x)))
    h = layers.ReLU(6)(layers.DepthwiseConv2D(3, padding="same", name="depthwise")(h))
    h = layers.BatchNormalization()(layers.Conv2D(4, 1, name="project")(h))
    network = models.lc_net(keras.Model(inputs, layers.Add(name="sum")([x, h])))
    gate = network.get_layer("sum_gate")
    expand, depthwise, project = (gate.layer.get_layer(name) for name in ("expand", "depthwise", "project"))
    assert [type(layer) for layer in (expand, depthwise, project)] == [GatedConv2D, GatedDepthwiseConv2D, GatedConv2D]
    assert [layer.gate for layer in (expand, depthwise, project)] == ["relu1", None, None]
    shown = np.ones((2, 5, 5, 4), "float32")
    shown[1] = -1
    gate.gate_kernel.assign(np.full((4, 1), 0.25))
    gate.gate_bias.assign([0.0])  # open for the first input, shut for the second
    expand.gate_bias.assign([1, 1, -1, -1, -1, -1])  # two of six channels
    dense = 25 * (4 * 6 + 9 * 6 + 6 * 4)
    assert cost.profile(network).macs == dense + 4 + 4 * 6  # and the gate nets
    first, second = (cost.profile(network, shown[i : i + 1]).expected_macs for i in range(2))
    assert first == 25 * (4 * 2 + 9 * 2 + 2 * 4) + 4 + 4 * 6
    assert second == 4
    np.testing.assert_array_equal(network.predict(shown, verbose=0)[1], shown[1])


def test_shut_channels_do_not_leak_an_offset():
    """What a batch normalisation adds behind the depthwise convolution is gone with the channel."""
    model = trained(inverted())
    network = models.lc_net(model, layer_gates=False)
    expand = network.get_layer("expand_1")
    open_gates = (np.arange(expand.filters) % 3 == 0).astype("float32")
    expand.gate_bias.assign(open_gates * 2 - 1)
    behind = keras.Model(network.input, network.get_layer("depthwise_1").output[0])
    plain = keras.Model(model.input, model.get_layer("relu_1").output)
    expected = plain.predict(images(), verbose=0) * open_gates
    np.testing.assert_allclose(behind.predict(images(), verbose=0), expected, atol=1e-5)
    assert np.abs(plain.predict(images(), verbose=0)[..., 1::3]).max() > 0


def test_shut_blocks_are_their_shortcuts():
    network = models.lc_net(models.thin_resnet(8, 4), gate_bias_initializer="zeros")
    stem, block = (keras.Model(network.input, network.get_layer(name).output) for name in ("stem", "block_1"))
    np.testing.assert_array_equal(block.predict(images(), verbose=0), stem.predict(images(), verbose=0))


def test_trains_saves_and_loads(tmp_path):
    network = models.lc_net(inverted(), gate="binary_concrete", gate_threshold=0.2)
    gates = [layer for layer in dynamic_layers(network) if layer.gate]
    assert {layer.gate for layer in gates} == {"binary_concrete"}
    assert {layer.gate_threshold for layer in gates} == {0.2}
    before = [keras.ops.convert_to_numpy(weight) for weight in network.trainable_weights]
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert np.isfinite(network.train_on_batch(images(8), np.arange(8)))
    now = [keras.ops.convert_to_numpy(weight) for weight in network.trainable_weights]
    assert all(np.isfinite(value).all() for value in now)
    assert sum(not np.array_equal(*pair) for pair in zip(before, now, strict=True)) > 0.9 * len(now)
    network.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(images(), verbose=0), network.predict(images(), verbose=0))


def test_frozen_layers_stay_frozen_and_gates_train(tmp_path):
    model = models.thin_resnet(8, 4)
    model.trainable = False
    network = models.lc_net(model)
    network.save(tmp_path / "model.keras")
    for made in (network, keras.saving.load_model(tmp_path / "model.keras")):
        assert {weight.path.rsplit("/", 1)[-1] for weight in made.trainable_weights} == {"gate_kernel", "gate_bias"}


def test_normalizations_keep_what_they_learned():
    normalize = layers.Normalization()
    normalize.adapt(3.0 + 2.0 * images(20))
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, models.thin_resnet(8, 4)(normalize(inputs)))
    x = 3.0 + 2.0 * images()
    np.testing.assert_allclose(models.lc_net(model).predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-4)


def test_an_addition_that_ends_two_blocks_stays():
    x = inputs = keras.Input((8, 8, 4))
    add = layers.Add()
    for number in range(2):
        h = layers.Conv2D(4, 3, padding="same", activation="relu", name=f"a{number}")(x)
        x = add([x, layers.Conv2D(4, 3, padding="same", name=f"b{number}")(h)])
    h = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = layers.Add()([x, layers.Conv2D(4, 3, padding="same")(h)])
    network = models.lc_net(keras.Model(inputs, x))
    assert len(of_kind(network, LayerGate)) == 1


def test_what_a_gated_layer_does_not_have_is_left_as_it_is():
    def built(**options):
        x = inputs = keras.Input((8, 8, 4))
        h = layers.BatchNormalization(**options)(layers.Conv2D(4, 3, padding="same", use_bias=False)(x))
        h = layers.Conv2D(4, 3, padding="same")(layers.ReLU()(h))
        return models.lc_net(keras.Model(inputs, layers.Add()([x, h])))

    assert not of_kind(built(), layers.Conv2D)
    cases = [{"gamma_regularizer": "l1"}, {"beta_constraint": "non_neg"}]
    if keras.backend.backend() == "tensorflow":  # the others refuse it
        cases.append({"synchronized": True})
    for options in cases:
        network = built(**options)
        normalizations = of_kind(network, layers.BatchNormalization)
        assert any(norm.get_config().get(name) not in (None, False) for norm in normalizations for name in options)


def block(h, x=None):
    return keras.Model(x, layers.Add()([x, h]))


def test_what_cannot_be_gated_is_left():
    x = keras.Input((8, 8, 4))
    grouped = layers.Conv2D(4, 3, padding="same", groups=2)(layers.Conv2D(4, 3, padding="same")(x))
    swish = layers.Conv2D(4, 3, padding="same")(layers.Conv2D(6, 3, padding="same", activation="swish")(x))
    twice = layers.Conv2D(6, 1)(x)
    twice = layers.Concatenate()([layers.Conv2D(2, 1)(twice), layers.Conv2D(2, 1)(twice)])
    for branch in (grouped, swish, twice):
        network = models.lc_net(block(branch, x))
        assert [type(layer) for layer in dynamic_layers(network)] == [LayerGate]
        with pytest.raises(ValueError, match="in which one convolution reads the channels of another"):
            models.lc_net(block(branch, x), layer_gates=False)
    shared = layers.Conv2D(4, 3, padding="same")
    with pytest.raises(ValueError, match="Expected a network with residual blocks"):
        models.lc_net(block(shared(shared(x)), x))
    inside = layers.Conv2D(4, 3, padding="same")(x)
    seen = keras.Model(x, [layers.Add()([x, layers.Conv2D(4, 1)(inside)]), inside])
    with pytest.raises(ValueError, match="Expected a network with residual blocks"):
        models.lc_net(seen)


def test_bad_input():
    plain = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Conv2D(4, 3)], name="plain")
    with pytest.raises(ValueError, match="Expected a network with residual blocks.*Received: `plain` without one"):
        models.lc_net(plain)
    with pytest.raises(ValueError, match="Expected at least one True"):
        models.lc_net(models.thin_resnet(8, 4), False, False)
    with pytest.raises(ValueError, match="Expected a Keras model. Received: 'model'"):
        models.lc_net("model")
    with pytest.raises(ValueError, match="Expected a built Functional or Sequential model"):
        models.lc_net(keras.Sequential([layers.Conv2D(4, 3)]))
    with pytest.raises(ValueError, match="`gate_threshold`"):
        models.lc_net(models.thin_resnet(8, 4), gate_threshold=2.0)
