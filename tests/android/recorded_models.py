"""Files of small dynamic networks, and what the Python runners make of them: what Java has to reproduce.

python recorded_models.py FOLDER writes them with `cases.json`: inputs, budgets, outputs, exits and multiply-adds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import sys
from typing import Any

TESTS = pathlib.Path(__file__).resolve().parents[1]
ROWS = 12
LABELS = [f"class {index}" for index in range(10)]


def _load(path: pathlib.Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"keras_efficient_android_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _budgets(runner: Any) -> list[dict[str, float]]:
    """Each kind that the file takes: as Java's keys."""
    entries = runner.metadata
    costs = [entry["macs"] for entry in entries["exits"]]
    budgets: list[dict[str, float]] = [{}]
    if entries.get("staged") or entries.get("budget_inputs"):
        budgets += [{"max_exit": 0}, {"max_exit": 1}, {"deadline_macs": (costs[1] + costs[2]) / 2}]
    if "trade_off" in entries:
        budgets += [{"trade_off": 0.01}, {"trade_off": 1.0}, {"trade_off": 0.02, "max_exit": 1}]
    return budgets


def _cases(path: pathlib.Path, x: Any) -> list[dict[str, Any]]:
    from keras_efficient import tflite_export

    runner = tflite_export.load(path)
    cases = []
    for budget in _budgets(runner):
        result = runner(x, **budget)
        for row in range(len(x)):
            cases.append(
                {
                    "input": x[row].ravel().tolist(),
                    "budget": budget,
                    "output": result.output[row].tolist(),
                    "exit": int(result.exit_index[row]),
                    "macs": float(result.executed_macs[row]),
                }
            )
    return cases


def _with_op_version(content: bytes, version: int) -> bytes:
    """The file with another version of its ops in the metadata."""
    from keras_efficient.tflite_export import flatbuffer, metadata

    parsed = flatbuffer.parse(content)
    entries = metadata.read(parsed)
    entries["ops"] = dict.fromkeys(entries["ops"], version)
    flatbuffer.set_metadata(parsed, metadata.NAME, json.dumps(entries).encode())
    return flatbuffer.serialize(parsed)


def write(folder: pathlib.Path) -> None:
    """Writes files and cases."""
    from keras_efficient import tflite_export

    networks = _load(TESTS / "tflite_export" / "conftest.py")
    tiny_models = _load(TESTS / "native" / "tiny_models.py")
    x = networks.inputs()
    plain, budgeted = networks.multi_exit(), networks.conditioned()
    further: dict[str, Any] = {"labels": LABELS, "normalization": {"mean": 0.5, "std": 0.25}, "representative_data": x}
    for name, model, options in (
        ("gated.tflite", plain, {"ops": "custom"}),
        ("gated_budgets.tflite", plain, {"ops": "custom", "budget_inputs": True}),
        ("gated_staged.tflite", plain, {"ops": "custom", "staged": True}),
        ("gated_builtin.tflite", plain, {"ops": "builtin"}),
        ("gated_builtin_staged.tflite", plain, {"ops": "builtin", "staged": True}),
        ("trade_off.tflite", budgeted, {"ops": "custom"}),
        ("trade_off_staged.tflite", budgeted, {"ops": "custom", "staged": True}),
        ("composite.tflite", plain, {"ops": "composite"}),
    ):
        tflite_export.export(model, folder / name, **options, **further)
    cases = {
        path.name: _cases(path, x[:ROWS]) for path in sorted(folder.glob("*.tflite")) if path.name != "composite.tflite"
    }
    (folder / "newer_metadata.tflite").write_bytes(_with_op_version((folder / "gated.tflite").read_bytes(), 99))
    newer = tiny_models.single_op_model(tiny_models.GatedConv2D(), "custom", version=99)
    (folder / "newer_op.tflite").write_bytes(newer)
    (folder / "cases.json").write_text(json.dumps({"labels": LABELS, "files": cases}))


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    write(pathlib.Path(sys.argv[1]))
