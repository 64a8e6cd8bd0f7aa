import keras
import numpy as np
import pytest

from keras_efficient import layers, models, policies, tflite_export
from keras_efficient.tflite_export import flatbuffer, int8
from keras_efficient.tflite_export.signatures import InputSpec


@pytest.fixture(scope="module")
def plain():
    """Exits without gates: everything in it has an int8 builtin."""
    keras.utils.set_random_seed(1)
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    x = layers.EarlyExit(10)(x)
    h = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = keras.layers.ReLU()(keras.layers.Add()([x, keras.layers.Conv2D(8, 3, padding="same")(h)]))
    x = layers.EarlyExit(10)(x)
    x = keras.layers.MaxPooling2D()(keras.layers.Conv2D(16, 3, padding="same", activation="relu")(x))
    return models.MultiExit.from_model(keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x))))


def types(path, *names, operand=0):
    """Tensor type of an operand of every op of those names."""
    model = flatbuffer.parse(path.read_bytes())
    builtin = flatbuffer.builtin_names()
    return [
        subgraph.tensors[op.inputs[operand]].type
        for subgraph in model.subgraphs
        for op in subgraph.operators or []
        if builtin[flatbuffer.operator_code(model, op)[0]] in names
    ]


@pytest.mark.parametrize("threshold", [0.0, 2.0], ids=["all leave first", "nobody leaves early"])
def test_every_branch_is_int8_whatever_calibration_enters(plain, x, tmp_path, threshold):
    plain.policy = policies.ThresholdPolicy(threshold=threshold)
    path = tmp_path / "m.tflite"
    report = tflite_export.export(plain, path, quantize="int8", representative_data=x)
    convolutions = types(path, "CONV_2D")
    assert len(convolutions) == 4
    assert set(convolutions) == {9}, report
    assert set(types(path, "FULLY_CONNECTED")) == {9}
    result = tflite_export.load(path)(x)
    expected, exit_index = plain.predict_exits(x, verbose=0)
    np.testing.assert_array_equal(result.exit_index, exit_index)
    # 8 bits over the range of the logits: a few steps of rounding behind at most four layers.
    assert np.abs(result.output - expected).max() < 0.06 * np.ptp(expected)
    assert set(types(path, "CONV_2D", operand=1)) == {9}
    assert report.quantized == 1.0
    assert report.notes == ()


def test_gated_convolutions_and_the_multi_bit_layer_take_the_integers(model, x, tmp_path):
    path = tmp_path / "m.tflite"
    report = tflite_export.export(model, path, quantize="int8", representative_data=x)
    assert report.written == {"ke.gated_conv_2d_int8": 3, "ke.gate_net_int8": 3, "ke.multi_bit_dense_int8": 1}
    assert sorted(types(path, "STABLEHLO_COMPOSITE")) == [9] * 7
    runner = tflite_export.load(path)
    assert runner.delegated_ops == 7
    stock = tflite_export.load(path, delegate="none")(x)
    kernels = runner(x)
    same = stock.exit_index == kernels.exit_index
    assert same.mean() > 0.98
    np.testing.assert_allclose(stock.output[same], kernels.output[same], atol=0.02)


@pytest.fixture(scope="module")
def chain():
    """Two gated convolutions after each other, the second listening to the first one's gates, and a third."""
    keras.utils.set_random_seed(5)
    image = keras.Input((10, 9, 6), name="image")
    h, g = layers.GatedConv2D(20, 3, padding="same", activation="relu6", return_gate=True, name="first")(image)
    h = layers.GatedConv2D(6, 1, gate=None, name="second")(h, input_gate=g)
    h = keras.layers.Add()([image, h])
    model = keras.Model(image, layers.GatedConv2D(9, 3, strides=2, activation="relu", name="third")(h))
    rng = np.random.default_rng(2)
    for weight in model.weights:
        if "bias" in weight.path:
            weight.assign(rng.normal(0.2, 0.4, weight.shape))
        if weight.path.endswith("gate_kernel"):
            weight.assign(rng.normal(0, 2.0, weight.shape))
    return model


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(4)
    return (rng.normal(size=(64, 10, 9, 6)) * rng.uniform(0.2, 1.5, (64, 1, 1, 6))).astype("float32")


@pytest.mark.parametrize("form", ["composite", "custom"])
def test_nothing_but_integers_between_gated_convolutions(chain, images, tmp_path, form):
    path = tmp_path / "m.tflite"
    report = tflite_export.export(chain, path, ops=form, quantize="int8", representative_data=images)
    assert report.written == {"ke.gated_conv_2d_int8": 3, "ke.gate_net_int8": 2}
    # The input, and the output; gates are floats.
    assert len(types(path, "QUANTIZE")) == 1
    outputs = flatbuffer.parse(path.read_bytes()).subgraphs[0]
    floats = [t for t in outputs.tensors if t.type == 0 and len(t.shape) == 4]
    assert len(floats) == 2
    result = tflite_export.load(path)(images)
    expected = keras.ops.convert_to_numpy(chain(images))
    # A few steps of 8 bits, and gates that the rounded means move by a little.
    error = np.abs(result.output - expected)
    assert error.mean() < 0.01 * np.ptp(expected)
    assert error.max() < 0.15 * np.ptp(expected)


def test_kernel_and_decomposition_give_the_same_integers(chain, images, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(chain, path, quantize="int8", representative_data=images)
    kernels, stock = tflite_export.load(path), tflite_export.load(path, delegate="none")
    assert kernels.delegated_ops == 5
    np.testing.assert_array_equal(kernels(images).output, stock(images).output)


def test_weights_are_stored_as_int8(chain, images, tmp_path):
    sizes = {}
    for quantize in (None, "int8"):
        path = tmp_path / f"{quantize}.tflite"
        tflite_export.export(chain, path, quantize=quantize, representative_data=images)
        model = flatbuffer.parse(path.read_bytes())
        sizes[quantize] = sum(len(b.data) for b in model.buffers if b.data is not None and len(b.data) >= 400)
    kernels = 9 * 6 * 20 + 20 * 6 + 9 * 6 * 9
    assert sizes[None] >= 4 * (kernels - 120)
    assert sizes["int8"] < 2 * kernels


def test_ranges_are_those_of_the_data():
    dense = keras.layers.Dense(2, kernel_initializer="identity", name="dense")
    model = keras.Sequential([keras.Input((2,)), dense, keras.layers.ReLU(name="relu")])
    data = np.array([[-3.0, 1.0], [0.5, 7.0]], "float32")
    sites = int8.observe(model, [InputSpec("x", (1, 2), "float32")], data)
    site = sites[id(dense)]
    assert (site.inputs[0].low, site.inputs[0].high) == (-3.0, 7.0)
    assert site.fused_readers == {0: True}
    relu = sites[id(model.get_layer("relu"))]
    assert (relu.outputs[0].low, relu.outputs[0].high) == (0.0, 7.0)


def test_data_is_required(plain, tmp_path):
    with pytest.raises(ValueError, match="`representative_data`. Expected real inputs"):
        tflite_export.export(plain, tmp_path / "m.tflite", quantize="int8")


@pytest.mark.parametrize("relu", [{"negative_slope": 0.1}, {"max_value": 4.0}, {"max_value": 6.0}, {}])
def test_convolutions_before_any_relu_are_int8(x, tmp_path, relu):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1))
    h = keras.layers.ReLU(**relu)(keras.layers.Conv2D(8, 3)(image))
    model = keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(h)))
    report = tflite_export.export(model, tmp_path / "m.tflite", quantize="int8", representative_data=x)
    assert report.quantized == 1.0, report
    assert set(types(tmp_path / "m.tflite", "CONV_2D")) == {9}
    found = tflite_export.load(tmp_path / "m.tflite")(x).output
    expected = keras.ops.convert_to_numpy(model(x))
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
