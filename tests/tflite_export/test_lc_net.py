"""Networks of `keras.applications` with gates: one call, a step of training, a file that agrees and counts the same."""

import keras
import numpy as np
import pytest

from keras_efficient import cost, models, ops, tflite_export
from keras_efficient.layers import GatedDense, GatedDepthwiseConv2D

SHAPE = (32, 32, 3)


def images(count=3):
    return np.random.default_rng(0).uniform(-1, 1, (count, *SHAPE)).astype("float32")


def mobilenet():
    """MobileNetV2 up to its eighth block: five residual ones and the others."""
    return with_head(keras.applications.MobileNetV2(SHAPE, alpha=0.35, weights=None, include_top=False), "block_8_add")


def resnet():
    """ResNet50 up to its sixth block: projections with stride 1 and 2, and identities."""
    return with_head(
        keras.applications.ResNet50(input_shape=SHAPE, weights=None, include_top=False), "conv3_block3_out"
    )


def with_head(network, layer):
    pooled = keras.layers.GlobalAveragePooling2D()(network.get_layer(layer).output)
    return keras.Model(network.input, keras.layers.Dense(10)(pooled))


def spread(model):
    """Gates of which about half are shut, other ones for other inputs."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith("gate_kernel"):
            weight.assign(random.normal(0, 1.5, weight.shape))
        if weight.path.endswith("gate_bias"):
            weight.assign(random.normal(0.3, 0.4, weight.shape))
    return model


@pytest.mark.parametrize(("make", "kernels"), [(mobilenet, 25), (resnet, 36)])
def test_from_keras_applications_to_a_file(make, kernels, tmp_path):
    keras.utils.set_random_seed(0)
    network = models.lc_net(make())
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    assert np.isfinite(network.train_on_batch(images(), np.arange(3)))
    spread(network)
    x = images()
    with ops.skipping():
        expected = np.concatenate([keras.ops.convert_to_numpy(network(image[None], training=False)) for image in x])
    path = tmp_path / "model.tflite"
    report = tflite_export.export(network, path, representative_data=x)
    assert max(report.parity.values()) < 1e-5
    profile = cost.profile(network, x)
    assert profile.expected_macs < 0.95 * profile.macs
    for delegate, delegated in (("none", 0), ("auto", kernels)):
        runner = tflite_export.load(path, delegate=delegate)
        results = [runner(image[None]) for image in x]
        np.testing.assert_allclose(np.concatenate([result.output for result in results]), expected, atol=1e-5)
        assert runner.delegated_ops == delegated
        if delegated:
            executed = np.mean([np.mean(result.executed_macs) for result in results])
            assert executed == pytest.approx(profile.expected_macs, rel=0.01)


def test_int8_keeps_the_depthwise_gates_and_takes_the_dense_ones(tmp_path):
    x = inputs = keras.Input((8, 8, 4))
    x, gate = GatedDepthwiseConv2D(3, padding="same", activation="relu", return_gate=True)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x, gate = GatedDense(12, activation="relu", return_gate=True)(x, input_gate=gate)
    model = spread(keras.Model(inputs, GatedDense(3, gate=None)(x, input_gate=gate)))
    data = np.random.default_rng(0).uniform(-1, 1, (64, 8, 8, 4)).astype("float32")
    path = tmp_path / "model.tflite"
    report = tflite_export.export(model, path, quantize="int8", representative_data=data)
    assert report.written["ke.gated_depthwise_conv_2d"] == 1
    runner = tflite_export.load(path)
    expected = keras.ops.convert_to_numpy(model(data[:8]))
    found = np.concatenate([runner(image[None]).output for image in data[:8]])
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
