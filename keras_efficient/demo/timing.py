"""Latency of `.tflite` files, fairly: all files in turns, in one process, around nothing but `invoke`."""

import gc
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_efficient.tflite_export import delegate_path
from keras_efficient.tflite_export.runtime import find_runtime
from keras_efficient.tflite_export.session import file_metadata, plugin_options
from keras_efficient.tflite_export.task_folding import one_task
from keras_efficient.tflite_export.timing import interruptions

Array = NDArray[Any]
BLOCK = 16
ATTEMPTS = 10
METHOD = (
    "one pass over the test images at batch 1, the files in turns; a run during which the system gave the processor to "
    f"another program is repeated, up to {ATTEMPTS} times"
)
WARM_UP = 16


class Timer:
    """An interpreter that runs one sample and says how long that took.

    Args:
        path: A `.tflite` file with batch 1.
        delegate: `"none"` (stock), `"auto"` (ours) or the path of a library.
        threads: Threads of the interpreter.
        task: Of a file of all tasks, the one to run.

    Raises:
        ValueError: If there is no such task, the file needs a batch of another size than 1, or the runtime refuses it.
        FileNotFoundError: If there is no such library.
    """

    def __init__(
        self, path: str | os.PathLike[str], delegate: str = "none", threads: int = 1, task: str | None = None
    ) -> None:
        runtime = find_runtime()
        library = None if delegate == "none" else delegate_path() if delegate == "auto" else pathlib.Path(delegate)
        delegates = [] if library is None else [runtime.load_delegate(library, plugin_options())]
        content = pathlib.Path(path).read_bytes()
        if task is not None:
            content = one_task(content, task)
        self._interpreter = runtime.interpreter(content, delegates, threads, file_metadata(content))
        self.indices = [int(detail["index"]) for detail in self._interpreter.get_input_details()]
        self._dtypes = [detail["dtype"] for detail in self._interpreter.get_input_details()]
        self.shapes = [tuple(int(size) for size in detail["shape"]) for detail in self._interpreter.get_input_details()]
        if any(shape and shape[0] != 1 for shape in self.shapes):
            raise ValueError(f"Latency is measured at batch 1. Received {path} with inputs of shape {self.shapes}")

    def run(self, arrays: Sequence[Array]) -> float:
        """Microseconds of one `invoke` on arrays `[1, ...]`, in the order of the file's inputs."""
        for index, dtype, array in zip(self.indices, self._dtypes, arrays, strict=True):
            self._interpreter.set_tensor(index, array.astype(dtype, copy=False))
        start = time.perf_counter_ns()
        self._interpreter.invoke()
        return (time.perf_counter_ns() - start) / 1e3


def in_turns(
    timers: Mapping[str, Timer], samples: Sequence[Sequence[Array]], runs: int | None = None, block: int = BLOCK
) -> dict[str, Array]:
    """Times every sample once in every timer.

    The timers take turns block by block, in an order that rotates, so that whatever else the machine does hits all
    alike; the first sample of a block runs once before it counts. A run during which the system took the processor
    away for another program is repeated, up to `ATTEMPTS` times.

    Args:
        timers: What to compare, by name.
        samples: Arrays `[1, ...]` in the order of the files' inputs, per sample.
        runs: How many runs, over the samples again and again; one per sample where None.
        block: Runs in a row.

    Returns:
        Microseconds `[runs]` by name, in the order of the samples.
    """
    order = np.arange(len(samples) if runs is None else runs) % len(samples)
    names = list(timers)
    times = {name: np.zeros(len(order)) for name in names}
    for name in names:
        for index in order[:WARM_UP]:
            timers[name].run(samples[index])
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number, start in enumerate(range(0, len(order), block)):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                timers[name].run(samples[order[start]])
                for position in range(start, min(start + block, len(order))):
                    times[name][position] = undisturbed(timers[name], samples[order[position]])
    finally:
        if collecting:
            gc.enable()
    return times


def undisturbed(timer: Timer, arrays: Sequence[Array]) -> float:
    """Microseconds of one run that no other program interrupted, or of the last attempt."""
    time_of_run = 0.0
    for _ in range(ATTEMPTS):
        before = interruptions()
        time_of_run = timer.run(arrays)
        if interruptions() == before:
            break
    return time_of_run


def summary(times: Array) -> dict[str, float]:
    """Mean, median and 95th percentile in microseconds."""
    p50, p95 = np.percentile(times, [50, 95])
    return {"mean_us": float(times.mean()), "p50_us": float(p50), "p95_us": float(p95)}
