"""What keeps files of packed bits small: flatbuffers that share equal parts, and short decompositions."""

import itertools

import keras
import numpy as np
import pytest

from keras_efficient import layers, quantization, tflite_export
from keras_efficient.tflite_export import flatbuffer, sharing


def plain(value):
    """An object of the object API as dictionaries and lists."""
    if hasattr(value, "__dict__"):
        return {name: plain(entry) for name, entry in vars(value).items()}
    if isinstance(value, np.ndarray):
        return [value.dtype.name, value.tolist()]
    return [plain(entry) for entry in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def network():
    """Kernelwise, pixelwise and dense groups of mixed widths, streams that end within a byte, a layer of no bits."""
    keras.utils.set_random_seed(2)
    x = inputs = keras.Input((9, 9, 3), name="image")
    x = layers.MultiBitConv2D(7, 3, bits=3, groups="kernelwise", activation="relu", strides=2, name="kernelwise")(x)
    x = layers.MultiBitConv2D(5, 2, bits=1, padding="same", dilation_rate=2, name="pixelwise")(x)
    x = layers.MultiBitDense(6, bits=2, group_size=10, activation="relu", name="dense")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, layers.MultiBitDense(4, bits=2, group_size=6, name="nothing")(x))
    rng = np.random.default_rng(4)
    for layer in quantization.multi_bit_layers(model):
        scales = np.array(layer.scales)
        scales[rng.random(scales.shape) < (1.0 if layer.name == "nothing" else 0.4)] = 0.0
        layer.set_bases(np.array(layer.codes), scales)
        layer.bias.assign(rng.normal(size=layer.bias.shape))
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).normal(size=(10, 9, 9, 3)).astype("float32")


def test_the_stock_runtime_computes_what_keras_does(network, images, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(network, path, representative_data=images)
    found = tflite_export.load(path, delegate="none")(images).output
    np.testing.assert_allclose(found, network.predict(images, verbose=0), atol=1e-4)


def test_bits_left_out_at_run_time(network, images, tmp_path):
    path, model = tmp_path / "m.tflite", quantization.nested(network)
    data = {"image": images, "max_bits": np.full(len(images), 8, "int32")}
    tflite_export.export(model, path, representative_data=data)
    runner = tflite_export.load(path, delegate="none")
    for bits in (0, 1, 2, 8):
        given = {"image": images[:1], "max_bits": np.full(1, bits, "int32")}
        np.testing.assert_allclose(runner(**given).output, model.predict(given, verbose=0), atol=1e-4)


def test_a_layer_more_costs_little_but_its_weights(images, tmp_path):
    sizes = []
    for count in (1, 2, 3):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((64,))])
        for number in range(count):
            model.add(layers.MultiBitDense(64, bits=1, group_size=64, name=f"dense{number}"))
        x = np.zeros((2, 64), "float32")
        sizes.append(tflite_export.export(model, tmp_path / "m.tflite", representative_data=x).bytes)
    weights = 64 * (64 / 8 + 4) + 64 * 4 + 8  # bits, scales, bias, widths
    assert all(weights < larger - size < weights + 1200 for size, larger in itertools.pairwise(sizes))
    assert sizes[0] < weights + 5000


def test_equal_parts_are_written_once_and_read_alike(network, images, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(network, path, representative_data=images)
    model = flatbuffer.parse(path.read_bytes())
    flatbuffers = pytest.importorskip("flatbuffers")
    ordinary = flatbuffers.Builder(1024)
    ordinary.Finish(model.Pack(ordinary), file_identifier=flatbuffer.IDENTIFIER)
    shared = flatbuffer.serialize(model)
    assert len(shared) < 0.8 * len(ordinary.Output())
    assert plain(flatbuffer.parse(shared)) == plain(flatbuffer.parse(bytes(ordinary.Output())))
    assert flatbuffer.serialize(flatbuffer.parse(shared)) == shared


def test_parts_that_differ_in_one_thing_stay_apart():
    flatbuffers = pytest.importorskip("flatbuffers")
    builder = sharing.builder_class()()
    strings = [builder.CreateString(text) for text in ("ab", "ab", "abc", "b")]
    assert strings[0] == strings[1]
    assert len(set(strings)) == 3
    tables = []
    for slot, child in ((0, strings[0]), (0, strings[1]), (1, strings[0]), (0, strings[2])):
        builder.StartObject(2)
        builder.PrependUOffsetTRelativeSlot(slot, child, 0)
        tables.append(builder.EndObject())
    assert tables[0] == tables[1]
    assert len(set(tables)) == 3
    vectors = []
    for sizes in ((4, 2), (4, 2), (8, 1)):  # the same bytes, aligned to 4 and to 8
        builder.StartVector(*sizes, sizes[0])
        for _ in range(sizes[1]):
            (builder.PrependInt32 if sizes[0] == 4 else builder.PrependInt64)(0)
        vectors.append(builder.EndVector())
    assert vectors[0] == vectors[1]
    assert vectors[2] != vectors[0]
    assert isinstance(builder, flatbuffers.Builder)
