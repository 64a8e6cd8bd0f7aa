"""Files of glimpse networks: whole sequences, borders, stopping early, steps, and what they never touch."""

import keras
import numpy as np
import pytest

from keras_efficient import policies, tflite_export
from keras_efficient.layers import GlimpseCell, GuidedCell
from keras_efficient.models import GuidedAttention, RecurrentAttention
from keras_efficient.tflite_export import flatbuffer

IMAGES = np.random.default_rng(0).uniform(size=(12, 30, 40, 1)).astype("float32")
BYTES = np.round(255 * IMAGES).astype("uint8")
READERS = {"SLICE", "GATHER", "STRIDED_SLICE"}


def network(guided=False, image_dtype="float32", glimpses=3):
    sizes = {"units": 12, "glimpse_units": 8, "location_units": 8, "seed": 0, "location_gain": 8.0}
    keras.utils.set_random_seed(0)
    if guided:
        cell = GuidedCell(6, 2, core="lstm", locator_units=8, context_size=5, **sizes)
        model = GuidedAttention(3, cell, glimpses, image_dtype=image_dtype)
    else:
        model = RecurrentAttention(3, GlimpseCell(6, 3, **sizes), glimpses, image_dtype=image_dtype)
    model.build((None, 30, 40, 1))
    return model


def readers_of_image(path):
    """Which ops read the image, whole."""
    parsed = flatbuffer.parse(path.read_bytes())
    found = set()
    for subgraph in parsed.subgraphs:
        for operator in subgraph.operators:
            for index in operator.inputs:
                if index >= 0 and list(subgraph.tensors[index].shape) == [1, 30, 40, 1]:
                    code, _ = flatbuffer.operator_code(parsed, operator)
                    found.add(flatbuffer.builtin_names()[code])
    return found


@pytest.mark.parametrize(("guided", "image_dtype"), [(False, "float32"), (True, "uint8")])
def test_whole_sequences(tmp_path, guided, image_dtype):
    model = network(guided, image_dtype)
    images = IMAGES if image_dtype == "float32" else BYTES
    logits, locations = model.predict_path(images, verbose=0)
    assert np.abs(locations).max() > 0.7  # far enough out for patches that are moved inside
    report = tflite_export.export(model, tmp_path / "float.tflite", representative_data=images)
    assert max(report.parity.values()) < 1e-4
    for delegate in ("none", "auto"):
        found = tflite_export.load(tmp_path / "float.tflite", delegate=delegate)(images)
        np.testing.assert_allclose(found.output, logits[:, -1], atol=1e-4)
        np.testing.assert_allclose(found.outputs["locations"], locations, atol=1e-4)
    assert found.executed_macs[0] == model.exit_costs()[-1]
    assert readers_of_image(tmp_path / "float.tflite") <= READERS
    report = tflite_export.export(model, tmp_path / "int8.tflite", representative_data=images, quantize="int8")
    assert report.quantized > 0.6
    assert readers_of_image(tmp_path / "int8.tflite") <= READERS
    assert np.abs(tflite_export.load(tmp_path / "int8.tflite")(images).output - logits[:, -1]).max() < 0.5


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_stopping_early(tmp_path, quantize):
    model = network()
    confidence = policies.ExitData(**model.exit_data(IMAGES, np.arange(12) % 3)).features[:, 0, 0]
    model.policy = policies.ThresholdPolicy(float(np.median(confidence)))
    _, taken = model.predict_exits(IMAGES, verbose=0)
    path = tmp_path / "early.tflite"
    report = tflite_export.export(
        model, path, representative_data=IMAGES, quantize=quantize, budget_inputs=quantize is None
    )
    assert readers_of_image(path) <= READERS | {"IF"}
    found = tflite_export.load(path)(IMAGES)
    if quantize is None:
        assert report.exit_mismatches == 0
        assert max(report.parity.values()) < 1e-4
        np.testing.assert_array_equal(found.exit_index, taken)
        capped = tflite_export.load(path)(IMAGES, max_exit=0)
        np.testing.assert_array_equal(capped.exit_index, 0)
    assert 0 < (found.exit_index == 0).mean() < 1
    macs = model.exit_costs()[found.exit_index]
    assert (found.executed_macs >= macs).all()
    assert (found.executed_macs < macs + 100).all()  # and the policy's own


@pytest.mark.parametrize(("guided", "quantize"), [(False, None), (True, "int8")])
def test_step_with_explicit_state(tmp_path, guided, quantize):
    model = network(guided)
    data = model.step_data(IMAGES)
    report = tflite_export.export(
        model.step_model(), tmp_path / "step.tflite", signature="step", representative_data=data, quantize=quantize
    )
    assert quantize or max(report.parity.values()) < 1e-4
    step = tflite_export.load(tmp_path / "step.tflite", delegate="none")
    logits, _ = model.predict_path(IMAGES[:4], verbose=0)
    states = {name: array[:4] for name, array in data.items() if name != "image"}
    for k in range(model.num_glimpses):
        outputs = step(image=IMAGES[:4], **states).outputs
        np.testing.assert_allclose(outputs["output"], logits[:, k], atol=1e-4 if quantize is None else 0.5)
        states = {name: outputs[name] for name in states}
    assert readers_of_image(tmp_path / "step.tflite") <= READERS


@pytest.mark.parametrize("guided", [False, True])
def test_rows_are_the_same_bytes(tmp_path, guided):
    """Two channels, whole sequence and steps: what Keras computes from pixels, cut out of rows."""
    images = np.stack([IMAGES[..., 0], IMAGES[::-1, ..., 0]], axis=-1)
    rows = images.reshape(12, 30, 80)
    models = []
    for layout in ("pixels", "rows"):
        keras.utils.set_random_seed(0)
        cell = (GuidedCell if guided else GlimpseCell)(6, 4, units=12, location_gain=8.0, seed=0)  # 48: wider than 30
        model = (GuidedAttention if guided else RecurrentAttention)(3, cell, 3, image_layout=layout)
        model.build((None, 30, 40, 2))
        models.append(model)
    pixels, in_rows = models
    in_rows.set_weights(pixels.get_weights())
    logits, locations = pixels.predict_path(images, verbose=0)
    for x in (images, rows):
        np.testing.assert_array_equal(in_rows.predict_path(x, verbose=0)[0], logits)
    path = tmp_path / "rows.tflite"
    assert max(tflite_export.export(in_rows, path, representative_data=rows).parity.values()) < 1e-4
    assert readers_of_image(path) == set()
    for delegate in ("none", "auto"):
        found = tflite_export.load(path, delegate=delegate)(rows)
        np.testing.assert_allclose(found.output, logits[:, -1], atol=1e-4)
        np.testing.assert_allclose(found.outputs["locations"], locations, atol=1e-4)
    data = in_rows.step_data(images)
    report = tflite_export.export(in_rows.step_model(), path, signature="step", representative_data=data)
    assert max(report.parity.values()) < 1e-4


LOCATIONS = [(-1, -1), (1, 1), (-5, 5), (7, 0.3), (-0.999, 0.999), (np.inf, -np.inf), (0.3, -0.7)]


def test_borders_and_beyond(tmp_path):
    """What lies outside counts as the border, what is no number as the centre, in Keras and on the device."""
    model = network()
    path = tmp_path / "step.tflite"
    tflite_export.export(model.step_model(), path, signature="step", representative_data=model.step_data(IMAGES))
    locations = np.array(LOCATIONS, "float32")
    count = len(locations)
    inputs = {"image": IMAGES[:count], "hidden": np.ones((count, 12), "float32"), "location": locations}
    wanted = model.step_model().predict(inputs, verbose=0)
    for delegate in ("none", "auto"):
        found = tflite_export.load(path, delegate=delegate)(**inputs).outputs
        for name, values in wanted.items():
            np.testing.assert_allclose(found[name], values, atol=1e-4)
    sensor = model.cell.sensor
    inside = np.asarray(sensor(IMAGES[:count], np.clip(locations, -1, 1)))
    np.testing.assert_array_equal(inside, np.asarray(sensor(IMAGES[:count], locations)))


def test_not_a_number_is_the_centre_on_the_device(tmp_path):
    image, location = keras.Input((30, 40, 1), name="image"), keras.Input((2,), name="location")
    sensor = keras.Model({"image": image, "location": location}, network().cell.sensor(image, location))
    path = tmp_path / "sensor.tflite"
    data = {"image": IMAGES[:3], "location": np.zeros((3, 2), "float32")}
    tflite_export.export(sensor, path, representative_data=data)
    locations = np.array([[np.nan, np.nan], [np.nan, 1], [-1, np.nan]], "float32")
    wanted = np.asarray(network().cell.sensor(IMAGES[:3], np.nan_to_num(locations)))
    for delegate in ("none", "auto"):
        found = tflite_export.load(path, delegate=delegate)(image=IMAGES[:3], location=locations).output
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_file_holds_each_weight_once(tmp_path):
    sizes = [tflite_export.export(network(glimpses=glimpses), tmp_path / "model.tflite").bytes for glimpses in (2, 8)]
    weights = 4 * sum(int(np.prod(weight.shape)) for weight in network().trainable_variables)
    assert sizes[1] - sizes[0] < 6 * 9000  # the ops of six further glimpses
    assert weights < sizes[0]
