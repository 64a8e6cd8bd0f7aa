import keras
import numpy as np
import pytest

from keras_efficient import cost, layers, models, policies, tflite_export
from keras_efficient.tflite_export import flatbuffer, metadata


def parsed(path):
    return flatbuffer.parse(path.read_bytes())


def keys(path):
    return [flatbuffer.text(entry.signatureKey) for entry in parsed(path).signatureDefs]


@pytest.fixture(scope="module")
def staged_files(model, x, tmp_path_factory):
    folder = tmp_path_factory.mktemp("staged")
    made = {}
    for form in ("composite", "custom", "builtin"):
        path = folder / f"{form}.tflite"
        made[form] = (
            path,
            tflite_export.export(model, path, ops=form, staged=True, representative_data=x, labels=list("0123456789")),
        )
    return made


@pytest.mark.parametrize(
    ("form", "delegate"), [("builtin", "none"), ("composite", "none"), ("composite", "auto"), ("custom", "auto")]
)
def test_stages_agree_with_keras(model, x, staged_files, form, delegate):
    path, report = staged_files[form]
    logits, exit_index = model.predict_exits(x, verbose=0)
    runner = tflite_export.load(path, delegate=delegate)
    assert isinstance(runner, tflite_export.StagedRunner)
    result = runner(x)
    np.testing.assert_array_equal(result.exit_index, exit_index)
    np.testing.assert_allclose(result.output, logits, atol=1e-4)
    assert max(report.parity.values()) < 1e-4
    assert set(report.parity) == {
        *(f"stage_{k}.output" for k in range(3)),
        *(f"stage_{k}.features" for k in range(2)),
        *(f"policy_{k}.score" for k in range(2)),
    }
    assert runner.delegated_ops == (
        0 if delegate == "none" else sum(report.written.values()) if form != "builtin" else 0
    )


def test_stages_execute_what_the_file_with_branches_executes(model, x, files, staged_files):
    staged = tflite_export.load(staged_files["composite"][0])(x).executed_macs
    whole = tflite_export.load(files["composite"][0])(x).executed_macs
    np.testing.assert_allclose(staged, whole, rtol=1e-6)
    np.testing.assert_allclose(staged.mean(), cost.profile(model, x).expected_macs, rtol=1e-5)


def test_signatures_and_metadata(model, staged_files):
    path, _ = staged_files["composite"]
    assert sorted(keys(path)) == ["policy_0", "policy_1", "stage_0", "stage_1", "stage_2"]
    entries = metadata.read(parsed(path))
    assert entries["staged"] is True
    assert [entry["macs"] for entry in entries["exits"]] == model.exit_costs().tolist()
    assert entries["labels"] == list("0123456789")
    assert "trade_off" not in entries
    assert len(entries["stages"]) == 3
    total = sum(sum(stage["macs"].values()) + stage.get("policy_macs", 0) for stage in entries["stages"])
    assert total == pytest.approx(entries["macs"]["dense"])


def test_weights_are_in_the_file_once(budgeted, x, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(budgeted, path, staged=True, representative_data=x)
    kernel = keras.ops.convert_to_numpy(budgeted.stages[1].get_layer("inner").kernel)
    assert path.read_bytes().count(np.transpose(kernel, (3, 0, 1, 2)).tobytes()) == 1
    model = parsed(path)
    held = [buffer.data.tobytes() for buffer in model.buffers if buffer.data is not None and len(buffer.data)]
    assert len(held) == len(set(held))
    # The policy's second kernel serves all exits, and so does its bias.
    readers = [
        int(subgraph.tensors[operator.inputs[1]].buffer)
        for subgraph in model.subgraphs
        for operator in subgraph.operators
        if flatbuffer.text(subgraph.name).startswith("policy")
        and len(operator.inputs) > 1
        and list(subgraph.tensors[operator.inputs[1]].shape) == [1, 2]
    ]
    assert len(readers) == 2
    assert len(set(readers)) == 1


def test_summary_and_trade_off(budgeted, x, tmp_path):
    path = tmp_path / "m.tflite"
    report = tflite_export.export(budgeted, path, staged=True, representative_data=x)
    assert max(report.parity.values()) < 1e-4
    runner = tflite_export.load(path)
    assert runner.metadata["trade_off"] == {"min": 0.01, "max": 1.0, "default": pytest.approx(0.1)}
    counts = []
    for trade_off in (0.01, 0.1, 1.0):
        logits, exit_index = budgeted.predict_exits(x, verbose=0, trade_off=trade_off)
        result = runner(x, trade_off=trade_off)
        np.testing.assert_array_equal(result.exit_index, exit_index)
        np.testing.assert_allclose(result.output, logits, atol=1e-4)
        counts.append(exit_index.mean())
    assert counts[0] > counts[1] > counts[2]
    np.testing.assert_array_equal(
        runner(x[:32]).exit_index, runner(x[:32], trade_off=runner.metadata["trade_off"]["default"]).exit_index
    )


def test_int8_stages(budgeted, x, tmp_path):
    path = tmp_path / "m.tflite"
    report = tflite_export.export(budgeted, path, staged=True, representative_data=x, quantize="int8")
    assert report.quantized == 1.0
    assert report.notes == ()
    logits, exit_index = budgeted.predict_exits(x, verbose=0)
    result = tflite_export.load(path)(x)
    same = result.exit_index == exit_index
    assert same.mean() > 0.95
    assert np.abs(result.output - logits)[same].max() < 0.06 * np.ptp(logits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 2}, "`batch_size`. Expected 1 for staged files"),
        ({"budget_inputs": True}, "`budget_inputs`. Expected None or False"),
    ],
)
def test_bad_arguments(model, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        tflite_export.export(model, tmp_path / "m.tflite", staged=True, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_staged_needs_stages_and_a_policy(network, tmp_path):
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="`staged`. Expected False for a model without exits"):
        tflite_export.export(plain, tmp_path / "m.tflite", staged=True)
    with pytest.raises(ValueError, match="`staged`. Expected a model with an exit policy"):
        tflite_export.export(models.MultiExit.from_model(network()), tmp_path / "m.tflite", staged=True)


def test_several_inputs(tmp_path):
    a, b = keras.Input((4,), name="left"), keras.Input((6,), name="right")
    h = keras.layers.Dense(8, activation="relu")(keras.layers.Concatenate()([a, b]))
    h = layers.EarlyExit(3)(h)
    model = models.MultiExit.from_model(keras.Model([a, b], keras.layers.Dense(3)(keras.layers.Dense(8)(h))))
    model.policy = policies.ThresholdPolicy(0.4)
    tflite_export.export(model, tmp_path / "m.tflite", staged=True)
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(40, 4)).astype("float32"), rng.normal(size=(40, 6)).astype("float32")
    result = tflite_export.load(tmp_path / "m.tflite")(left=left, right=right)
    logits, exit_index = model.predict_exits([left, right], verbose=0)
    np.testing.assert_array_equal(result.exit_index, exit_index)
    np.testing.assert_allclose(result.output, logits, atol=1e-5)
