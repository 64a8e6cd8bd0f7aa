"""`export(model, folder, target="coral")`: one full-int8 file per stage, and the policy for the CPU."""

import dataclasses
import json
import pathlib
import tempfile
from typing import Any

import keras
import numpy as np

from keras_efficient.tflite_export import flatbuffer, metadata, runtime
from keras_efficient.tflite_export.signatures import call_model, input_specs, model_inputs
from keras_efficient.tflite_export.targets import coral_stages, folder
from keras_efficient.tflite_export.targets.coral_checking import coral_check
from keras_efficient.tflite_export.targets.coral_report import CoralReport
from keras_efficient.tflite_export.targets.coral_runner import CoralRunner
from keras_efficient.tflite_export.targets.folder_report import FolderReport
from keras_efficient.tflite_export.targets.graph import Operand, read_graph
from keras_efficient.tflite_export.verify import sample_inputs

VERIFIED_INPUTS = 128


def export_coral(
    model: keras.Model,
    path: pathlib.Path,
    representative_data: Any,
    labels: list[str] | None = None,
    normalization: dict[str, float] | None = None,
) -> FolderReport:
    """Writes the folder (or `.zip`): `stage_0.tflite` ..., `policy.tflite`, `model.json`.

    The files are compared with Keras on the first 128 rows of the data, on the CPU, before anything is written.

    Args:
        model: Built model on the TensorFlow backend.
        path: A new folder, one that an earlier export wrote, or a name that ends in `.zip`.
        representative_data: Real inputs to calibrate on.
        labels: Class names.
        normalization: What was done to raw inputs.

    Raises:
        ValueError: For a model with gates or without a policy, or files that the compiler would refuse.
        OSError: If the folder cannot be written.
    """
    folder.check_destination(path)
    files = coral_stages.coral_stages(model, representative_data)
    contents = {f"{name}.tflite": content for name, content in files.items()}
    stages = [name for name in contents if name.startswith("stage_")]
    checks = {name: _checked(name, contents[name]) for name in stages}
    entries = _entries(contents, stages, labels, normalization)
    notes = _cpu_notes(checks)
    compared, failed = _compared(model, contents, entries, representative_data)
    contents["model.json"] = json.dumps(entries, indent=1).encode()
    folder.write(path, contents)
    return FolderReport(
        path=str(path),
        ops="builtin",
        written={},
        bytes=sum(len(content) for content in contents.values()),
        dense_macs=sum(stage["macs"]["dense"] for stage in entries["stages"]),
        quantized=1.0,
        notes=tuple(notes + failed),
        target="coral",
        files={name: len(content) for name, content in contents.items()},
        checks=checks,
        **compared,
    )


def _checked(name: str, content: bytes) -> CoralReport:
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory) / name
        file.write_bytes(content)
        report = coral_check(file)
    if not report.compiles:
        reasons = " ".join(f"{finding.reason} {finding.mend}" for finding in report.refusals)
        raise ValueError(f"The Edge TPU compiler would refuse {name} of this model: {reasons}")
    return dataclasses.replace(report, path=name)


def _cpu_notes(checks: dict[str, CoralReport]) -> list[str]:
    notes = []
    for name, report in checks.items():
        for verdict in report.cuts:
            left = len(report.operators) - report.mapped
            reasons = " ".join(f"{finding.reason} {finding.mend}" for finding in verdict.findings)
            notes.append(
                f"{name}: {left} of {len(report.operators)} operators run on the CPU, from {verdict.operator} on. "
                f"{reasons}"
            )
    return notes


def _entries(
    contents: dict[str, bytes], stages: list[str], labels: list[str] | None, normalization: dict[str, float] | None
) -> dict[str, Any]:
    """What `model.json` says: the model's metadata, and of every file its hash and its tensors."""
    policy = contents.get("policy.tflite")
    known = metadata.read(flatbuffer.parse(policy)) if policy is not None else {}
    return {
        **json.loads(metadata.encode({"form": "builtin", "ops": {}})),
        "target": "coral",
        "quantize": "int8",
        **{key: known[key] for key in ("exits", "trade_off") if key in known},
        **({"labels": labels} if labels else {}),
        **({"normalization": normalization} if normalization else {}),
        "stages": [
            _stage_entry(name, contents[name], known["stages"][k] if known else {}) for k, name in enumerate(stages)
        ],
        **({"policy": {"file": "policy.tflite", "sha256": folder.sha256(policy)}} if policy is not None else {}),
    }


def _stage_entry(name: str, content: bytes, of_policy: dict[str, Any]) -> dict[str, Any]:
    parsed = flatbuffer.parse(content)
    entry = flatbuffer.signature(parsed)
    operands = read_graph(parsed, int(entry.subgraphIndex)).operands
    scales = {tensor.index: parsed.subgraphs[entry.subgraphIndex].tensors[tensor.index] for tensor in operands}
    return {
        "file": name,
        "sha256": folder.sha256(content),
        "macs": metadata.read(parsed)["macs"],
        **({"policy_macs": of_policy["policy_macs"]} if "policy_macs" in of_policy else {}),
        **{
            side: {
                flatbuffer.text(part.name): _tensor_entry(operands[part.tensorIndex], scales[part.tensorIndex])
                for part in getattr(entry, side)
            }
            for side in ("inputs", "outputs")
        },
    }


def _tensor_entry(operand: Operand, tensor: Any) -> dict[str, Any]:
    entry: dict[str, Any] = {"shape": list(operand.shape), "dtype": operand.type}
    if operand.scales:
        entry.update(scale=float(tensor.quantization.scale[0]), zero_point=operand.zero_point)
    return entry


def _compared(
    model: keras.Model, contents: dict[str, bytes], entries: dict[str, Any], data: Any
) -> tuple[dict[str, Any], list[str]]:
    """The stages beside Keras on the first rows of the data, as fields of the report; a note without a runtime."""
    try:
        found = runtime.find_runtime()
    except ImportError as error:
        return {"parity": {}, "verified_inputs": 0, "exit_mismatches": 0}, [f"Not verified: {error}"]
    specs = input_specs(model, 1)
    inputs = sample_inputs(specs, data, VERIFIED_INPUTS)
    count = len(next(iter(inputs.values())))
    result = CoralRunner(contents, entries, found, 1)(**inputs)
    tensors = [keras.ops.convert_to_tensor(inputs[spec.name]) for spec in specs]
    same_exit = np.ones(count, bool)
    if result.exit_index is not None:
        given = keras.tree.map_structure(np.asarray, model_inputs(model, specs, tensors))
        logits, exits = model.predict_exits(given, verbose=0)
        same_exit = exits == result.exit_index
        expected = {"output": logits}
    else:
        outputs = call_model(model, specs, tensors)
        expected = {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}
    parity, other_label = {}, np.zeros(count, bool)
    for name, values in expected.items():
        gaps = np.abs(values.astype("float64") - result.outputs[name])[same_exit]
        parity[name] = float(gaps.max()) if gaps.size else 0.0
        if values.ndim == 2 and values.shape[1] > 1:
            other_label |= values.argmax(-1) != result.outputs[name].argmax(-1)
    return {
        "parity": parity,
        "verified_inputs": count,
        "exit_mismatches": int(count - same_exit.sum()),
        "label_mismatches": int(other_label.sum()),
    }, []
