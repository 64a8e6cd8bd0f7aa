import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_efficient.tflite_export import flatbuffer, int8_io
from keras_efficient.tflite_export.session import file_metadata
from keras_efficient.tflite_export.stage_files import stage_files


@pytest.fixture(scope="module")
def int8_files(budgeted, x):
    return stage_files(budgeted, x)


def runner(content, key=None):
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    return interpreter.get_signature_runner(key)


def quantized(values, detail):
    scale, zero = detail["quantization"]
    return np.clip(np.round(values / scale + zero), -128, 127).astype("int8")


def real(values, detail):
    scale, zero = detail["quantization"]
    return (values.astype("float32") - zero) * np.float32(scale)


def test_files_and_their_ops(int8_files):
    assert list(int8_files) == ["stage_0", "stage_1", "stage_2", "policy"]
    names = flatbuffer.builtin_names()
    for k in range(3):
        parsed = flatbuffer.parse(int8_files[f"stage_{k}"])
        (subgraph,) = parsed.subgraphs
        used = {names[flatbuffer.operator_code(parsed, operator)[0]] for operator in subgraph.operators}
        assert not used & {"IF", "CUSTOM", "DEQUANTIZE", "STABLEHLO_COMPOSITE"}
        assert {tensor.type for tensor in subgraph.tensors} <= {9, 2}  # int8, and int32 for biases and axes
        for tensor in subgraph.tensors:
            assert all(size > 0 for size in tensor.shape)


def test_what_a_stage_gives_is_what_the_next_takes(int8_files):
    for k in range(2):
        given = runner(int8_files[f"stage_{k}"]).get_output_details()
        taken = runner(int8_files[f"stage_{k + 1}"]).get_input_details()
        assert set(taken) == ({"features", "summary"} if k == 0 else {"features"})
        for name, detail in taken.items():
            assert detail["dtype"] == np.int8
            assert given[name]["quantization"] == detail["quantization"]
            assert list(given[name]["shape"]) == list(detail["shape"])


def test_run_stage_by_stage_they_agree_with_keras(budgeted, x, int8_files):
    stages = [runner(int8_files[f"stage_{k}"]) for k in range(3)]
    scorers = [runner(int8_files["policy"], f"policy_{k}") for k in range(2)]
    details = [stage.get_output_details() for stage in stages]
    expected, exit_index = budgeted.predict_exits(x, verbose=0, trade_off=0.1)
    logits, exits = [], []
    for row in range(len(x)):
        carry = {"image": quantized(x[row : row + 1], stages[0].get_input_details()["image"])}
        for k, stage in enumerate(stages):
            carry = {name: carry[name] for name in stage.get_input_details()}
            carry = stage(**carry)
            output = real(carry["output"], details[k]["output"])
            if k == 2:
                break
            summary = real(carry["summary"], details[k]["summary"])
            if scorers[k](output=output, summary=summary, trade_off=np.float32([0.1]))["score"][0] > 0:
                break
        logits.append(output)
        exits.append(k)
    same = np.array(exits) == exit_index
    assert same.mean() > 0.95
    assert np.abs(np.concatenate(logits) - expected)[same].max() < 0.06 * np.ptp(expected)


def test_metadata(budgeted, int8_files):
    entries = file_metadata(int8_files["policy"])
    decisions = np.cumsum([stage["policy_macs"] for stage in entries["stages"]])
    assert [entry["macs"] for entry in entries["exits"]] == (budgeted.exit_costs() + decisions).tolist()
    assert entries["staged"] is True
    assert entries["trade_off"]["max"] == 1.0
    for k in range(3):
        stage = file_metadata(int8_files[f"stage_{k}"])
        assert stage["macs"]["builtin"] == entries["stages"][k]["macs"]["builtin"]


def test_float_stages(budgeted, x):
    files = stage_files(budgeted, x, inference_type="float32")
    outputs = runner(files["stage_0"])(image=x[:1])
    expected = budgeted.predict_all(x[:1], verbose=0)["exit_1"]
    np.testing.assert_allclose(outputs["output"], expected, atol=1e-5)


def test_layer_gates_are_no_branches(model, x):
    files = stage_files(model, x, inference_type="float32")
    expected = model.predict_all(x[:1], verbose=0)
    carry = {"image": x[:1]}
    for k in range(3):
        stage = runner(files[f"stage_{k}"])
        carry = stage(**{name: carry[name] for name in stage.get_input_details()})
        np.testing.assert_allclose(carry["output"], expected[f"exit_{k + 1}"], atol=1e-4)
        assert len(flatbuffer.parse(files[f"stage_{k}"]).subgraphs) == 1


def test_bad_input(budgeted, x):
    with pytest.raises(ValueError, match="`inference_type`. Expected one of"):
        stage_files(budgeted, x, inference_type="uint8")
    with pytest.raises(ValueError, match="`representative_data`. Expected real inputs"):
        stage_files(budgeted, None)
    with pytest.raises(ValueError, match="`representative_data`. Expected shape"):
        stage_files(budgeted, x[:, :4])


def test_float_ends_are_named(budgeted, x):
    parsed = flatbuffer.parse(stage_files(budgeted, x, inference_type="float32")["stage_2"])
    with pytest.raises(ValueError, match="8-bit inputs and outputs. .* input `features` is read by"):
        int8_io.to_int8_io(parsed)
