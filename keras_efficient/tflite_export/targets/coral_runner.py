"""Running a Coral folder on the development side: stage by stage in int8, exits decided here, as the board does it."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_efficient.tflite_export.budgets import budget
from keras_efficient.tflite_export.inputs import checked_inputs
from keras_efficient.tflite_export.runner import Result
from keras_efficient.tflite_export.runtime import Runtime, find_runtime
from keras_efficient.tflite_export.targets.folder import sha256

Array = NDArray[Any]


def load_coral(path: str | os.PathLike[str], *, num_threads: int = 1, runtime: str | None = None) -> "CoralRunner":
    """Loads a folder that `export(target="coral")` wrote, and runs it on this machine's CPU.

    Args:
        path: The folder.
        num_threads: Threads of each stage.
        runtime: As for `load`.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the folder is none of ours, or a file in it was changed.
        ImportError: If no runtime is installed.
    """
    folder = pathlib.Path(path)
    described = folder / "model.json"
    if not described.is_file():
        raise FileNotFoundError(
            "Invalid value for argument `path`. Expected a folder that export(target='coral') wrote, with a "
            f"model.json. Received: {str(path)!r}"
        )
    try:
        entries = json.loads(described.read_text("utf-8"))
        listed = [*entries["stages"], *([entries["policy"]] if "policy" in entries else [])]
        hashes = {str(entry["file"]): str(entry["sha256"]) for entry in listed}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"Invalid {described}. Expected what export(target='coral') writes: {error!r}") from error
    contents = {}
    for name, expected in hashes.items():
        file = folder / pathlib.PurePath(name).name
        if not file.is_file():
            raise FileNotFoundError(
                f"Invalid value for argument `path`. Expected {name} in {folder}, which is not there."
            )
        contents[name] = file.read_bytes()
        if sha256(contents[name]) != expected:
            raise ValueError(f"{file} is not the file that model.json describes: its SHA-256 differs.")
    return CoralRunner(contents, entries, find_runtime(runtime), num_threads)


class CoralRunner:
    """A loaded Coral folder, called like a `Runner` with float inputs; see `load_coral`.

    Stages run in int8: inputs are quantised with the scale of the first stage, features handed on as they are, logits
    scaled back for the policy.
    """

    def __init__(self, contents: Mapping[str, bytes], entries: Mapping[str, Any], runtime: Runtime, num_threads: int):
        self.metadata = dict(entries)
        self._entries = list(entries["stages"])
        self._stages = [_signature(runtime, contents[entry["file"]], num_threads) for entry in self._entries]
        self._policies = []
        if "policy" in entries:
            interpreter = runtime.interpreter(contents[entries["policy"]["file"]], [], 1, {})
            self._policies = [
                interpreter.get_signature_runner(f"policy_{k}") for k in range(max(len(self._stages) - 1, 0))
            ]
        self._policy_inputs = [set(policy.get_input_details()) for policy in self._policies]

    @property
    def num_exits(self) -> int:
        """Number of exits, the end of the network included."""
        return len(self._stages)

    def __call__(
        self,
        x: Any = None,
        *,
        trade_off: Any = None,
        max_exit: Any = None,
        deadline_macs: Any = None,
        deadline_us: Any = None,
        **inputs: Any,
    ) -> Result:
        """Runs float inputs `[N, ...]` one by one. Arguments, result and errors as for `Runner`."""
        first = self._entries[0]["inputs"]
        wanted = {
            name: {"shape_signature": entry["shape"], "dtype": np.float32 if "scale" in entry else np.int32}
            for name, entry in first.items()
        }
        arrays = checked_inputs(x, inputs, wanted)
        count = len(next(iter(arrays.values())))
        budgets = None
        if self._policies:
            budgets = budget(
                self.metadata,
                count,
                trade_off=trade_off,
                max_exit=max_exit,
                deadline_macs=deadline_macs,
                deadline_us=deadline_us,
            )
        rows, exits, macs = [], [], []
        for i in range(count):
            one = {name: quantized(array[i : i + 1], first[name]) for name, array in arrays.items()}
            price = None if budgets is None or budgets.trade_off is None else budgets.trade_off[i : i + 1]
            cap = 0 if budgets is None else int(budgets.max_exit[i])
            outputs, k, executed = self._run(one, price, cap)
            rows.append(outputs)
            exits.append(k)
            macs.append(executed)
        merged = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        taken = np.asarray(exits, "int32") if self._policies else None
        return Result(merged, taken, np.asarray(macs, "float64"))

    def _run(self, carry: dict[str, Array], trade_off: Array | None, cap: int) -> tuple[dict[str, Array], int, float]:
        """Outputs, exit and multiply-adds of one input."""
        executed = 0.0
        for k, stage in enumerate(self._stages):
            entry = self._entries[k]
            outputs = stage(**carry)
            executed += entry["macs"]["dense"]
            scaled = {name: dequantized(value, entry["outputs"][name]) for name, value in outputs.items()}
            if k + 1 == self.num_exits or k >= cap:
                break
            executed += entry.get("policy_macs", 0.0)
            offered = {**scaled, "trade_off": trade_off}
            score = self._policies[k](**{name: offered[name] for name in self._policy_inputs[k]})["score"]
            if float(score[0]) > 0:
                break
            carry = {name: _handed_on(outputs, entry, name, to) for name, to in self._entries[k + 1]["inputs"].items()}
        return ({"output": scaled["output"]} if self._policies else scaled), k, executed


def quantized(values: Array, entry: Mapping[str, Any]) -> Array:
    """`clip(round(x / scale) + zero_point)` in the tensor's integers; values of other tensors as they are."""
    if "scale" not in entry:
        return values.astype(entry["dtype"])
    limits = np.iinfo(entry["dtype"])
    steps = np.rint(values / np.float32(entry["scale"])) + entry["zero_point"]
    return np.clip(steps, limits.min, limits.max).astype(entry["dtype"])


def dequantized(values: Array, entry: Mapping[str, Any]) -> Array:
    """`(q - zero_point) scale` in float32; values of other tensors as they are."""
    if "scale" not in entry:
        return values
    return ((values.astype("int32") - entry["zero_point"]) * np.float32(entry["scale"])).astype("float32")


def _handed_on(outputs: Mapping[str, Array], entry: Mapping[str, Any], name: str, to: Mapping[str, Any]) -> Array:
    given = entry["outputs"][name]
    if all(given.get(key) == to.get(key) for key in ("dtype", "scale", "zero_point")):
        return outputs[name]
    return quantized(dequantized(outputs[name], given), to)


def _signature(runtime: Runtime, content: bytes, num_threads: int) -> Any:
    return runtime.interpreter(content, [], num_threads, {}).get_signature_runner()
