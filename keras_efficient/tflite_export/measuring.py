"""What the stages of a file really take on this machine: costs for exit policies, and deadlines in microseconds."""

import json
import os
import pathlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_efficient.tflite_export import flatbuffer, metadata, prune
from keras_efficient.tflite_export.extract import only_signature
from keras_efficient.tflite_export.inputs import checked_inputs
from keras_efficient.tflite_export.runner import delegate_library
from keras_efficient.tflite_export.runtime import find_runtime
from keras_efficient.tflite_export.session import Session
from keras_efficient.tflite_export.timing import microseconds

Array = NDArray[Any]
WARM_UP = 10


def measure_stages(
    path: str | os.PathLike[str], x: Any, num_threads: int = 1, *, delegate: str = "auto", runs: int = 200
) -> NDArray[np.float64]:
    """Microseconds per input up to and including each exit of a staged file: the costs for `ExitData.with_costs`.

    Every stage and every policy runs alone, in turns, on what the one before gave; only the runtime's `invoke` is
    timed. A run during which another program got the processor is repeated, and the median of `runs` counts.

    Args:
        path: File exported with `staged=True`.
        x: Inputs `[N, ...]`, or arrays by input name; used one after the other.
        num_threads: Threads of builtin ops and kernels.
        delegate: As for `load`.
        runs: Runs of each stage.

    Returns:
        `[K]`, strictly increasing. Exit `k` costs stages 0 to `k` and the policies asked on the way, its own included.

    Raises:
        ValueError: If the file is not staged, or the inputs do not fit it.
    """
    content = pathlib.Path(path).read_bytes()
    library = delegate_library(delegate)
    whole = Session(content, find_runtime(), library, num_threads)
    if not whole.metadata.get("staged"):
        raise ValueError(
            f"Invalid value for argument `path`. Expected a file exported with `staged=True`. Received: {path}"
        )
    exits = len(whole.metadata["exits"])
    keys = [*(f"stage_{k}" for k in range(exits)), *(f"policy_{k}" for k in range(exits - 1))]
    arrays = _checked(x, whole.interpreter.get_signature_runner("stage_0").get_input_details())
    parts = {key: _Part(only_signature(content, key), library, num_threads) for key in keys}
    trade_off = np.asarray([whole.metadata.get("trade_off", {}).get("default", 0.0)], "float32")
    times: dict[str, list[float]] = {key: [] for key in keys}
    count = len(next(iter(arrays.values())))
    for run in range(runs + WARM_UP):
        carry = {name: array[run % count : run % count + 1] for name, array in arrays.items()}
        for k in range(exits):
            carry = _timed(parts, times, f"stage_{k}", carry)
            if k + 1 < exits:
                _timed(parts, times, f"policy_{k}", {**carry, "trade_off": trade_off})
    medians = {key: float(np.median(values[WARM_UP:])) for key, values in times.items()}
    steps = [medians[f"stage_{k}"] + medians.get(f"policy_{k}", 0.0) for k in range(exits)]
    return np.cumsum(steps)


def set_latencies(path: str | os.PathLike[str], microseconds: ArrayLike) -> None:
    """Writes into a file's metadata what its exits take, so that `deadline_us` can be asked of it.

    Args:
        path: File with exits, staged or not; rewritten whole.
        microseconds: `[K]` up to and including each exit, positive and increasing, such as `measure_stages` gives.

    Raises:
        ValueError: If the file has no exits, or the numbers do not fit them.
    """
    file = pathlib.Path(path)
    model = flatbuffer.parse(file.read_bytes())
    entries = metadata.read(model)
    exits = entries.get("exits", [])
    values = np.asarray(microseconds, "float64")
    if not exits or values.shape != (len(exits),) or not values[0] > 0 or not (np.diff(values) > 0).all():
        raise ValueError(
            f"Invalid value for argument `microseconds`. Expected {len(exits)} positive, increasing numbers, one per "
            f"exit of the file. Received: {values.tolist()}"
        )
    entries["exits"] = [{**entry, "microseconds": float(us)} for entry, us in zip(exits, values, strict=True)]
    flatbuffer.set_metadata(model, metadata.NAME, json.dumps(entries).encode())
    prune.drop_unused(model)
    flatbuffer.write_whole(file, flatbuffer.serialize(model))


class _Part:
    """One signature in an interpreter of its own, whose `invoke` can be timed alone."""

    def __init__(self, content: bytes, library: pathlib.Path | None, num_threads: int) -> None:
        self._session = Session(content, find_runtime(), library, num_threads)
        self.interpreter = self._session.interpreter
        runner = self.interpreter.get_signature_runner()  # not kept: `invoke` refuses to run beside it
        self._inputs = {name: detail["index"] for name, detail in runner.get_input_details().items()}
        self._outputs = {name: detail["index"] for name, detail in runner.get_output_details().items()}

    def feed(self, offered: dict[str, Array]) -> None:
        for name, index in self._inputs.items():
            self.interpreter.set_tensor(index, offered[name])

    def given(self) -> dict[str, Array]:
        return {name: self.interpreter.get_tensor(index) for name, index in self._outputs.items()}


def _timed(
    parts: dict[str, _Part], times: dict[str, list[float]], key: str, offered: dict[str, Array]
) -> dict[str, Array]:
    part = parts[key]
    part.feed(offered)
    times[key].append(microseconds(part.interpreter.invoke))
    return part.given()


def _checked(x: Any, details: Any) -> dict[str, Array]:
    return checked_inputs(None, x, details) if isinstance(x, dict) else checked_inputs(x, {}, details)
