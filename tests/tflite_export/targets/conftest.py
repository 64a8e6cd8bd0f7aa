"""Small quantised files, each made for one thing that the Edge TPU compiler minds, and folders for the devices."""

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the converter needs the extra tflite")
pytest.importorskip("ai_edge_litert", reason="the exporter needs the extra tflite")
if keras.backend.backend() != "tensorflow":
    pytest.skip("these tests convert in this process, which needs the TensorFlow backend", allow_module_level=True)

import tensorflow as tf

from keras_efficient import layers, models, policies, tflite_export

IMAGE = (1, 8, 8, 4)


def weights(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def convert(function, shape=IMAGE, io=tf.int8, quantized=True):
    """The bytes of a function of one tensor, as the converter writes them; per-tensor dense weights."""
    traced = tf.function(function, input_signature=[tf.TensorSpec(shape, tf.float32, name="x")], autograph=False)
    holder = tf.Module()
    holder.function = traced
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.get_concrete_function()], holder)
    if quantized:
        rng = np.random.default_rng(1)
        fixed = [size or 1 for size in shape]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            [np.asarray(rng.normal(size=fixed), dtype="float32")] for _ in range(8)
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.inference_input_type = converter.inference_output_type = io
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    return converter.convert()


def convolution(x, groups=1, **kwargs):
    return tf.nn.conv2d(x, weights(3, 3, 4 // groups, 8), 1, "SAME", **kwargs)


@pytest.fixture(scope="session")
def converted():
    """`converted(function, shape=..., io=..., quantized=...)` -> bytes."""
    return convert


@pytest.fixture(scope="session")
def clean():
    """A file of many operators of which the compiler maps all."""

    def network(x):
        x = tf.nn.relu(convolution(x, dilations=[2, 2]))
        x = tf.nn.depthwise_conv2d(x, weights(3, 3, 8, 1), [1, 2, 2, 1], "SAME")
        x = tf.pad(x * tf.sigmoid(x), [[0, 0], [1, 1], [1, 1], [0, 0]])
        x = tf.nn.max_pool2d(tf.concat([x, tf.nn.relu6(x)], -1), 2, 2, "VALID")
        x = tf.nn.conv2d_transpose(x, weights(2, 2, 8, 16), (1, 6, 6, 8), 2)
        x = x + tf.nn.avg_pool2d(x, 3, 1, "SAME")
        return tf.nn.softmax(tf.matmul(tf.reduce_mean(x, [1, 2]), weights(8, 10)))

    return convert(network)


SHAPE = (8, 8, 1)


def network(gate=None):
    """Convolutions, two exits, a gated convolution (with or without its gate) and a multi-bit head."""
    image = keras.Input(SHAPE, name="image")
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = layers.EarlyExit(10)(x)
    h = layers.GatedConv2D(8, 3, padding="same", activation="relu", gate=gate, batch_normalization=True)(x)
    x = keras.layers.ReLU()(keras.layers.Add()([x, keras.layers.Conv2D(8, 3, padding="same")(h)]))
    x = layers.EarlyExit(10, pool="average_max")(x)
    x = keras.layers.Conv2D(16, 3, padding="same", activation="swish")(x)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D()(x))
    return models.MultiExit.from_model(keras.Model(image, layers.MultiBitDense(10)(x)))


@pytest.fixture(scope="session")
def images():
    """Images that differ in brightness, so that exits see different inputs."""
    rng = np.random.default_rng(0)
    bright = rng.uniform(0.1, 2, (128, 1, 1, 1))
    return (rng.uniform(-0.5, 1, (128, *SHAPE)) * bright).astype("float32")


@pytest.fixture(scope="session")
def exits(images):
    """The network with a policy under which every exit is taken."""
    keras.utils.set_random_seed(1)
    model = network()
    scaled(model.exits[0], 6.0)  # logits that differ enough for sure exits
    threshold = float(np.quantile(confidence(model, images, "exit_1"), 0.6))
    logits = model.predict_all(images, verbose=0)["exit_2"]
    factors = np.geomspace(0.05, 50, 200)
    shares = [np.mean(np.max(softmax(factor * logits), -1) > threshold) for factor in factors]
    scaled(model.exits[1], float(factors[np.argmin(np.abs(np.array(shares) - 0.5))]))
    model.policy = policies.ThresholdPolicy(threshold=threshold)
    return model


def scaled(layer, factor):
    """Multiplies the weights of an exit, and so its logits."""
    for weight in layer.trainable_weights:
        weight.assign(weight * factor)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def confidence(model, images, name):
    return softmax(model.predict_all(images, verbose=0)[name]).max(-1)


@pytest.fixture(scope="session")
def clear(exits, images):
    """Which images have decisions that hang on no step of 8 bits: far from the threshold, one logit well ahead."""
    found = np.ones(len(images), bool)
    running = np.ones(len(images), bool)
    for k, (name, logits) in enumerate(exits.predict_all(images, verbose=0).items()):
        margin = confidence(exits, images, name) - exits.policy.threshold
        last = k + 1 == exits.num_exits
        best = np.sort(logits, -1)
        ahead = best[:, -1] - best[:, -2] > 0.02 * np.ptp(logits)
        leaves = running & (last | (margin > 0))
        found &= ~running | last | (np.abs(margin) > 0.02)
        found &= ~leaves | ahead
        running &= ~leaves
    assert found.sum() >= 24
    return found


@pytest.fixture(scope="session")
def gated():
    return network("relu1")


@pytest.fixture(scope="session")
def coral(exits, images, tmp_path_factory):
    """`(folder, report)` of the network for Coral."""
    folder = tmp_path_factory.mktemp("coral") / "network"
    labels = [f"class {i}" for i in range(10)]
    report = tflite_export.export(
        exits,
        folder,
        target="coral",
        representative_data=images,
        labels=labels,
        normalization={"mean": 128.0, "std": 64.0},
    )
    return folder, report
