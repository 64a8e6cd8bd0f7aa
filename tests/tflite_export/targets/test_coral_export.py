import hashlib
import json

import keras
import numpy as np
import pytest

from keras_efficient import layers, tflite_export
from keras_efficient.tflite_export import flatbuffer
from keras_efficient.tflite_export.targets.coral_runner import dequantized, quantized
from keras_efficient.tflite_export.targets.graph import read_graph
from keras_efficient.tflite_export.targets.per_tensor_dense import to_one_scale

STAGES = ("stage_0.tflite", "stage_1.tflite", "stage_2.tflite")


def test_what_is_in_the_folder(coral):
    folder, report = coral
    assert {file.name for file in folder.iterdir()} == {*STAGES, "policy.tflite", "model.json"} == set(report.files)
    assert report.target == "coral"
    assert report.bytes == sum(file.stat().st_size for file in folder.iterdir())
    entries = json.loads((folder / "model.json").read_text())
    assert [stage["file"] for stage in entries["stages"]] == list(STAGES)
    for entry in (*entries["stages"], entries["policy"]):
        assert hashlib.sha256((folder / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
    assert entries["labels"][3] == "class 3"
    assert entries["normalization"] == {"mean": 128.0, "std": 64.0}
    assert len(entries["exits"]) == 3
    assert "Edge TPU" in str(report)


def test_every_stage_is_full_int8_and_maps_fully(coral):
    folder, report = coral
    assert set(report.checks) == set(STAGES)
    for name in STAGES:
        check = report.checks[name]
        assert check.maps_fully, check
        assert check.findings == (), check
        graph = read_graph(flatbuffer.parse((folder / name).read_bytes()))
        ends = {graph.operands[index].type for index in (*graph.inputs, *graph.outputs)}
        assert ends == {"int8"}
    assert report.notes == ()


def test_features_are_handed_on_as_they_are(coral):
    entries = json.loads((coral[0] / "model.json").read_text())
    for before, after in zip(entries["stages"], entries["stages"][1:], strict=False):
        for name, taken in after["inputs"].items():
            given = before["outputs"][name]
            assert (given["scale"], given["zero_point"]) == (taken["scale"], taken["zero_point"])


def test_labels_and_exits_are_those_of_keras(coral, exits, images, clear):
    folder, report = coral
    logits, taken = exits.predict_exits(images, verbose=0)
    assert len(set(taken)) == 3, "every exit is taken in this test"
    result = tflite_export.load_coral(folder)(images)
    assert report.verified_inputs == 128
    assert report.exit_mismatches == int(np.sum(result.exit_index != taken)) <= 16
    assert report.label_mismatches == int(np.sum(result.output.argmax(-1) != logits.argmax(-1))) <= 24
    np.testing.assert_array_equal(result.exit_index[clear], taken[clear])
    np.testing.assert_array_equal(result.output.argmax(-1)[clear], logits.argmax(-1)[clear])
    same = result.exit_index == taken
    # 8 bits over the range of the logits, a few steps behind at most five layers.
    assert np.abs(result.output - logits)[same].max() < 0.06 * np.ptp(logits)
    np.testing.assert_allclose(result.executed_macs, exits.exit_costs()[result.exit_index], rtol=0.01)


def test_a_request_may_cap_the_exits(coral, images):
    runner = tflite_export.load_coral(coral[0])
    assert set(runner(images[:16], max_exit=0).exit_index) == {0}
    costs = [entry["macs"] for entry in runner.metadata["exits"]]
    assert runner(images[:16], deadline_macs=costs[1]).exit_index.max() <= 1
    with pytest.raises(ValueError, match="`trade_off`"):
        runner(images[:1], trade_off=0.3)
    with pytest.raises(ValueError, match="Invalid shape"):
        runner(images[:1, :4])


def test_quantising_by_hand():
    """scale 0.5, zero point -10: 1.0 is step 2 -> -8; 200 is cut at 127; back: (-8 + 10) / 2 = 1."""
    tensor = {"dtype": "int8", "scale": 0.5, "zero_point": -10}
    steps = quantized(np.array([1.0, 200.0, -1.3], "float32"), tensor)
    np.testing.assert_array_equal(steps, np.array([-8, 127, -13], "int8"))
    np.testing.assert_array_equal(dequantized(steps, tensor), np.array([1.0, 68.5, -1.5], "float32"))
    assert quantized(np.array([3]), {"dtype": "int32"}).dtype == np.int32


def test_a_model_without_exits_is_one_stage(images, tmp_path):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(8, 3, use_bias=False)(image)
    x = keras.layers.Activation("swish")(keras.layers.BatchNormalization()(x))
    squeezed = keras.layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = keras.layers.Multiply()([x, keras.layers.Conv2D(8, 1, activation="sigmoid")(squeezed)])
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(10, activation="softmax", name="classes")(x))
    report = tflite_export.export(model, tmp_path / "one.zip", target="coral", representative_data=images)
    assert set(report.files) == {"stage_0.tflite", "model.json"}
    assert report.checks["stage_0.tflite"].maps_fully, report.checks["stage_0.tflite"]
    assert report.quantized == 1.0
    assert max(report.parity.values()) < 0.02
    again = tflite_export.FolderReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert again == report


def test_operators_on_the_cpu_are_named(images, tmp_path):
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.LeakyReLU()(keras.layers.Conv2D(4, 3)(image))
    model = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
    report = tflite_export.export(model, tmp_path / "folder", target="coral", representative_data=images)
    (note,) = report.notes
    assert note.startswith("stage_0.tflite: 3 of 4 operators run on the CPU, from LEAKY_RELU on.")
    assert "PReLU" in note


def test_an_older_export_is_replaced_and_nothing_else_is(coral, exits, images, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    arguments = {"target": "coral", "representative_data": images}
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="a new folder"):
        tflite_export.export(exits, folder, **arguments)
    (folder / "notes.txt").unlink()
    tflite_export.export(exits, folder, **arguments)
    assert not [file for file in tmp_path.iterdir() if file != folder], "no partial folder is left"
    first = (folder / "stage_0.tflite").stat().st_ino
    exits_json = json.loads((folder / "model.json").read_text())
    (folder / "stage_9.tflite").write_bytes(b"left from before")
    tflite_export.export(exits, folder, **arguments)
    assert not (folder / "stage_9.tflite").exists()
    assert (folder / "stage_0.tflite").stat().st_ino != first
    assert json.loads((folder / "model.json").read_text())["exits"] == exits_json["exits"]


def test_bad_models_and_arguments(exits, gated, images, tmp_path):
    def export(model, **arguments):
        tflite_export.export(model, tmp_path / "folder", target="coral", **arguments)

    with pytest.raises(ValueError, match="Expected real inputs for target='coral'"):
        export(exits)
    with pytest.raises(ValueError, match=r"no gates for target='coral'.*GatedConv2D.*`gate=None`"):
        export(gated, representative_data=images)
    policy, exits.policy = exits.policy, None
    try:
        with pytest.raises(ValueError, match="Expected an exit policy for target='coral'"):
            export(exits, representative_data=images)
    finally:
        exits.policy = policy
    for name, value in (("ops", "custom"), ("batch_size", 4), ("budget_inputs", True), ("aar", "x.aar")):
        with pytest.raises(ValueError, match=f"`{name}`"):
            export(exits, representative_data=images, **{name: value})
    with pytest.raises(ValueError, match="Expected shape"):
        export(exits, representative_data=images[:, :4])
    with pytest.raises(ValueError, match="Expected a keras.Model"):
        export("model.keras", representative_data=images)
    with pytest.raises(ValueError, match="`target`. Expected one of"):
        tflite_export.export(exits, tmp_path / "folder", target="toaster", representative_data=images)
    with pytest.raises(OSError, match="writable directory"):
        tflite_export.export(exits, tmp_path / "no" / "folder", target="coral", representative_data=images)
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_damaged_folders(coral, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.json"):
        tflite_export.load_coral(tmp_path)
    (tmp_path / "model.json").write_text("[]")
    with pytest.raises(ValueError, match="Expected what export"):
        tflite_export.load_coral(tmp_path)
    for file in coral[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "stage_1.tflite").write_bytes((tmp_path / "stage_0.tflite").read_bytes())
    with pytest.raises(ValueError, match="SHA-256 differs"):
        tflite_export.load_coral(tmp_path)
    (tmp_path / "stage_1.tflite").unlink()
    with pytest.raises(FileNotFoundError, match=r"stage_1\.tflite"):
        tflite_export.load_coral(tmp_path)


def test_dense_weights_get_one_scale(converted):
    """Weights 127 and -64 of scales 0.5 and 1.0: the new scale is 1.0, 63.5 rounds to 64, the bias 10 halves."""
    import tensorflow as tf

    model = flatbuffer.parse(
        converted(lambda x: tf.matmul(x, np.eye(2, dtype="float32")) + np.ones(2, "float32"), (1, 2))
    )
    operator = model.subgraphs[0].operators[0]
    weights, bias = (model.subgraphs[0].tensors[index] for index in operator.inputs[1:3])
    weights.quantization.scale, weights.quantization.zeroPoint = [0.5, 1.0], [0, 0]
    bias.quantization.scale, bias.quantization.zeroPoint = [0.25, 0.5], [0, 0]
    model.buffers[weights.buffer].data = np.array([[127, 2], [4, -64]], "int8").view("uint8").reshape(-1)
    model.buffers[bias.buffer].data = np.array([10, 7], "int32").view("uint8")
    assert to_one_scale(model) == 1
    weights, bias = (model.subgraphs[0].tensors[index] for index in operator.inputs[1:3])
    np.testing.assert_array_equal(flatbuffer.constant(model, weights), [[64, 1], [4, -64]])
    np.testing.assert_array_equal(flatbuffer.constant(model, bias), [5, 7])
    assert (list(weights.quantization.scale), list(bias.quantization.scale)) == ([1.0], [0.5])
    assert to_one_scale(model) == 0


def test_gates_in_an_inner_model_are_found(images, tmp_path):
    inner = keras.Input((8, 8, 4))
    block = keras.Model(inner, keras.layers.Conv2D(4, 3, padding="same")(inner))
    image = keras.Input((8, 8, 1))
    x = layers.LayerGate(block, name="skipped")(keras.layers.Conv2D(4, 3, padding="same")(image))
    model = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
    with pytest.raises(ValueError, match=r"'skipped' \(LayerGate\)"):
        tflite_export.export(model, tmp_path / "folder", target="coral", representative_data=images)
