"""What files hold of gated blocks: builtin ops where nothing is gated, ReLU inside branches, integers throughout."""

import keras
import numpy as np
import pytest

from keras_efficient import cost, layers, models, ops, tflite_export
from keras_efficient.tflite_export import flatbuffer

FLOAT32, INT8 = 0, 9
SHAPE = (12, 12, 3)


def images(count=48):
    rng = np.random.default_rng(1)
    return (rng.uniform(-1, 1, (count, *SHAPE)) * rng.uniform(0.3, 1.5, (count, 1, 1, 3))).astype("float32")


def operators(path):
    """Name and tensors' types of every operator outside of decompositions."""
    model = flatbuffer.parse(path.read_bytes())
    names = flatbuffer.builtin_names()
    found = []
    for subgraph in model.subgraphs:
        if b"decomposition" in (subgraph.name or b""):
            continue
        for operator in subgraph.operators or []:
            tensors = [*operator.inputs, *operator.outputs]
            large = [subgraph.tensors[i].type for i in tensors if i >= 0 and len(subgraph.tensors[i].shape) == 4]
            found.append((names[flatbuffer.operator_code(model, operator)[0]], large))
    return found


def network(**options):
    keras.utils.set_random_seed(3)
    model = models.LCResNet(8, 8, input_shape=SHAPE, **options)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith("gate_kernel"):
            weight.assign(rng.normal(0, 1.0, weight.shape))
        if weight.path.endswith("gate_bias"):
            weight.assign(rng.normal(0.3, 0.5, weight.shape))
    return models.reestimate_batch_normalization(model, [images()]) or model


@pytest.mark.parametrize("form", ["composite", "custom", "builtin"])
@pytest.mark.parametrize("quantize", [None, "int8"])
def test_layers_without_any_gate_are_builtin(form, quantize, tmp_path):
    keras.utils.set_random_seed(0)
    options = {"gate": None, "batch_normalization": True}
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.GatedConv2D(8, 3, 2, "same", activation="relu", **options),
            layers.GatedDepthwiseConv2D(3, padding="same", activation="relu6", **options),
            keras.layers.Flatten(),
            layers.GatedDense(10, gate=None),
        ]
    )
    path = tmp_path / "m.tflite"
    report = tflite_export.export(model, path, ops=form, quantize=quantize, representative_data=images())
    assert report.written == {}
    assert report.dense_macs == cost.profile(model).macs == 36 * 9 * (3 * 8 + 8) + 36 * 8 * 10
    named = dict(operators(path))
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"} <= set(named)
    assert set(named["CONV_2D"]) == {INT8 if quantize else FLOAT32}
    runner = tflite_export.load(path)
    result, expected = runner(images()), keras.ops.convert_to_numpy(model(images()))
    tolerance = 0.05 * np.ptp(expected) if quantize else 1e-5
    np.testing.assert_allclose(result.output, expected, atol=tolerance)
    assert (result.executed_macs == report.dense_macs).all()


@pytest.mark.parametrize("kind", ["both", "layer", "channel"])
def test_masked_skipped_and_files_agree(kind, tmp_path):
    model = network(layer_gates=kind != "channel", channel_gates=kind != "layer")
    x = images(12)
    masked = keras.ops.convert_to_numpy(model(x))
    with ops.skipping():
        skipped = np.concatenate([keras.ops.convert_to_numpy(model(image[None])) for image in x])
    np.testing.assert_allclose(skipped, masked, atol=1e-5)
    profile = cost.profile(model, x)
    assert 0.1 * profile.macs < profile.expected_macs < 0.95 * profile.macs
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, representative_data=images())
    for delegate in ("none", "auto"):
        result = tflite_export.load(path, delegate=delegate)(x)
        np.testing.assert_allclose(result.output, masked, atol=1e-5)
    assert np.mean(result.executed_macs) == pytest.approx(profile.expected_macs, rel=1e-5)


def test_relu_behind_a_block_runs_inside_its_branches(tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(network(), path, representative_data=images())
    parsed = flatbuffer.parse(path.read_bytes())
    names = flatbuffer.builtin_names()
    main = [names[flatbuffer.operator_code(parsed, op)[0]] for op in parsed.subgraphs[0].operators]
    assert main.count("IF") == 3
    assert "RELU" not in main


@pytest.mark.parametrize("kind", ["both", "layer"])
def test_int8_blocks_hand_integers_on(kind, tmp_path):
    model = network(channel_gates=kind == "both")
    path = tmp_path / "m.tflite"
    report = tflite_export.export(model, path, quantize="int8", representative_data=images())
    assert report.quantized == 1.0
    assert report.notes == ()
    named = operators(path)
    conditionals = [large for name, large in named if name == "IF"]
    assert len(conditionals) == 3
    assert {found for large in conditionals for found in large} == {INT8}
    # QUANTIZE of the image aside, floats of four dimensions are only requantised on their way past a shut block.
    floats = [name for name, large in named if FLOAT32 in large]
    assert set(floats) <= {"QUANTIZE", "DEQUANTIZE"}
    x = images()
    kernels, stock = tflite_export.load(path)(x), tflite_export.load(path, delegate="none")(x)
    expected = keras.ops.convert_to_numpy(model(x))
    error = np.abs(kernels.output - expected)
    assert error.mean() < 0.05 * np.ptp(expected)
    assert np.abs(kernels.output - stock.output).mean() < 0.01 * np.ptp(expected)


@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("gate", ["relu1", "binary_concrete"])
def test_blocks_without_a_branch(gate, quantize, tmp_path):
    model = network(**({} if gate == "relu1" else {"gate": gate}))
    x = images()
    masked = keras.ops.convert_to_numpy(model(x))
    results = []
    for branch in (True, False):
        for layer in model.layers:
            if isinstance(layer, layers.LayerGate):
                layer.branch = branch
        path = tmp_path / f"{branch}.tflite"
        report = tflite_export.export(model, path, quantize=quantize, representative_data=x)
        assert report.quantized == (1.0 if quantize else None)
        assert [name for name, _ in operators(path)].count("IF") == (3 if branch else 0)
        results.append(tflite_export.load(path)(x))
        tolerance = 0.05 * np.ptp(masked) if quantize else 1e-5
        assert np.abs(results[-1].output - masked).mean() < tolerance
        expected = cost.profile(model, x).expected_macs
        assert np.mean(results[-1].executed_macs) == pytest.approx(expected, rel=0.02 if quantize else 1e-5)
    assert (results[0].executed_macs < results[1].executed_macs).any()


def test_a_relu_that_others_read_past_stays(tmp_path):
    image = keras.Input(SHAPE)
    block = keras.layers.Conv2D(3, 3, padding="same")
    gated = layers.LayerGate(block, gate_kernel_initializer=keras.initializers.RandomNormal(stddev=3.0, seed=1))(image)
    outputs = keras.layers.Concatenate()([keras.layers.ReLU()(gated), gated])
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(outputs))
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, representative_data=images())
    result = tflite_export.load(path)(images())
    np.testing.assert_allclose(result.output, keras.ops.convert_to_numpy(model(images())), atol=1e-5)
    assert result.output.min() < 0
