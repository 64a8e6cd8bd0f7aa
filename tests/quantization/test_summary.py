import keras
import numpy as np
import pytest
from keras import ops

from keras_efficient import quantization, tflite_export
from keras_efficient.callbacks.efficiency_logger import average_bits
from keras_efficient.quantization import summary


def network():
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((10, 10, 3), name="image")
    x = keras.layers.Conv2D(8, 3, name="conv1")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Conv2D(6, 3, use_bias=False, activation="relu", name="conv2")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, keras.layers.Dense(5, name="dense")(x))


def quantized():
    model = quantization.quantize(network(), 2, {"conv2": "pixelwise", "dense": 72}).model
    scales = np.asarray(ops.convert_to_numpy(model.get_layer("dense").scales)).copy()
    scales[:10, 1] = 0
    scales[:4] = 0
    model.get_layer("dense").scales.assign(scales)  # 4 groups of 0 bits, 6 of 1, 15 of 2... of 5 x 3
    return quantization.finished(model)


def test_by_hand():
    found = summary(quantized())
    conv1, conv2, dense = found.layers
    assert (conv1.structure, conv1.weights, conv1.widths, conv1.bytes) == (
        "channelwise",
        216,
        (0, 0, 8),
        16 * (27 / 8 + 4) + 32,
    )
    assert (conv2.structure, conv2.groups, conv2.bytes) == ("pixelwise", 54, 54 * 2 * (8 / 8 + 4))
    assert dense.widths == (4, 6, 5)
    assert dense.average_bits == pytest.approx(16 / 15)
    assert dense.bytes == 16 * (72 / 8 + 4) + 4 * 5
    assert found.other_bytes == 4 * 16  # gamma and beta
    assert found.accounted_bytes == conv1.bytes + conv2.bytes + dense.bytes + 64
    assert found.index_bytes == (8 + 54 + 15) * 2 / 8
    weights = 216 + 432 + 1080
    assert found.average_bits == pytest.approx((216 * 2 + 432 * 2 + 1080 * 16 / 15) / weights)
    assert found.scale_bits == pytest.approx((16 + 108 + 16) / (8 + 54 + 15))
    macs = {"skipped": 1080 * 4 / 15, "1-bit x float": 1080 * 6 / 15, "2-bit x float": 64 * 216 + 36 * 432 + 1080 / 3}
    assert found.macs_by_precision == pytest.approx(macs)
    for line in ("4, 6, 5", "scales per group", "bytes by the accounting", "skipped"):
        assert line in str(found)
    assert average_bits(quantized()) == pytest.approx((found.average_bits * weights + 0) / weights, rel=1e-6)


def test_a_layer_in_floats_counts_as_that():
    found = summary(quantization.finished(quantization.quantize(network(), 1, skip=["dense"]).model))
    assert found.macs_by_precision["float x float"] == 1080
    assert found.other_bytes == 4 * (16 + 1080 + 5)


def test_a_file_holds_what_the_accounting_says(tmp_path):
    """Bits, scales, biases of the file are the paper's accounting, but for the index and the ends of streams."""
    pytest.importorskip("ai_edge_litert")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("files are read where they are made")
    from keras_efficient.tflite_export import flatbuffer

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((256,)), keras.layers.Dense(256, name="one"), keras.layers.Dense(64, name="two")]
    )
    made = quantization.quantize(model, 2, {"one": 256, "two": 128}).model
    scales = np.asarray(ops.convert_to_numpy(made.get_layer("one").scales)).copy()
    scales[::2, 1] = 0
    scales[::3] = 0
    made.get_layer("one").scales.assign(scales)
    plain = quantization.finished(made)
    found = summary(plain)
    tflite_export.export(plain, tmp_path / "model.tflite", ops="custom")
    parsed = flatbuffer.parse((tmp_path / "model.tflite").read_bytes())
    held = 0
    for operator in parsed.subgraphs[0].operators:
        if flatbuffer.operator_code(parsed, operator)[0] == flatbuffer.CUSTOM:
            constants = [flatbuffer.constant(parsed, parsed.subgraphs[0].tensors[i]) for i in operator.inputs]
            held += sum(value.nbytes for value in constants if value is not None)
    assert abs(held - found.accounted_bytes) <= 0.03 * found.accounted_bytes
    size = (tmp_path / "model.tflite").stat().st_size
    assert size <= found.accounted_bytes + 6000


def test_a_nested_file_takes_max_bits(tmp_path):
    pytest.importorskip("ai_edge_litert")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("once is enough, on the TensorFlow backend")
    model = quantization.nested(quantized())
    x = np.random.default_rng(0).normal(size=(3, 10, 10, 3)).astype("float32")
    tflite_export.export(
        model, tmp_path / "nested.tflite", representative_data={"image": x, "max_bits": np.ones(3, "int32")}
    )
    runner = tflite_export.load(tmp_path / "nested.tflite", delegate="none")
    for most in (1, 2):
        limit = np.full(3, most, "int32")
        expected = np.asarray(ops.convert_to_numpy(model([x, limit])))
        np.testing.assert_allclose(runner(image=x, max_bits=limit).output, expected, atol=1e-4)


def test_picture(tmp_path):
    pytest.importorskip("matplotlib")
    quantization.picture(quantized(), tmp_path / "bits.png")
    assert (tmp_path / "bits.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="Expected a model with multi-bit layers"):
        quantization.picture(network(), tmp_path / "none.png")
