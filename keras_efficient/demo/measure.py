"""The rows of the table: accuracy, MACs, latency and bytes of every file, all measured in one process and in turns."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_efficient import tflite_export
from keras_efficient.datasets import Dataset
from keras_efficient.demo import timing
from keras_efficient.demo.files import FILES

Array = NDArray[Any]
# name of the row: (file, delegate)
ROWS = {
    "static": ("static", "none"),
    "static_small": ("static_small", "none"),
    "static_int8": ("static_int8", "none"),
    "dynamic_stock": ("dynamic", "none"),
    "dynamic_delegate": ("dynamic", "auto"),
    "dynamic_int8": ("dynamic_int8", "auto"),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: What was run.
        accuracy: Share of the test images classified right.
        expected_macs: Mean multiply-adds per test image that were really executed.
        latency_us: Mean microseconds per test image, measured as `timing.METHOD` says.
        latency_p95_us: Their 95th percentile.
        latency_p50_us: Their median, which a busy machine disturbs least.
        bytes: Size of the file.
    """

    name: str
    accuracy: float
    expected_macs: float
    latency_us: float
    latency_p95_us: float
    bytes: int
    latency_p50_us: float = 0.0


@dataclasses.dataclass(frozen=True)
class Measured:
    """All rows, and what each run gave: predicted class and exit (None without exits) per test image."""

    rows: tuple[Row, ...]
    predictions: Mapping[str, Array]
    exits: Mapping[str, Array | None]
    times: Mapping[str, Array]

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)


def measure(
    folder: pathlib.Path, dataset: Dataset, static_macs: Mapping[str, float], threads: int, with_delegate: bool
) -> Measured:
    """Runs every file over the test images.

    Args:
        folder: Where the files of `files.FILES` lie.
        dataset: Its test part is used.
        static_macs: MACs of the rows that always do the same.
        threads: Threads of each interpreter.
        with_delegate: False where the native library is missing; all rows then run stock.
    """
    delegates = {name: delegate if with_delegate else "none" for name, (_, delegate) in ROWS.items()}
    paths = {name: folder / FILES[file] for name, (file, _) in ROWS.items()}
    predictions, exits, macs = {}, {}, {}
    for name, path in paths.items():
        result = tflite_export.load(path, delegate=delegates[name], num_threads=threads)(dataset.x_test)
        predictions[name] = result.output.argmax(axis=1)
        exits[name] = result.exit_index
        macs[name] = static_macs.get(name, float(result.executed_macs.mean()))
    timers = {name: timing.Timer(path, delegates[name], threads) for name, path in paths.items()}
    times = timing.in_turns(timers, [[image[np.newaxis]] for image in dataset.x_test])
    rows = tuple(
        Row(
            name=name,
            accuracy=float(np.mean(predictions[name] == dataset.y_test)),
            expected_macs=macs[name],
            latency_us=float(times[name].mean()),
            latency_p95_us=float(np.percentile(times[name], 95)),
            bytes=path.stat().st_size,
            latency_p50_us=float(np.median(times[name])),
        )
        for name, path in paths.items()
    )
    return Measured(rows, predictions, exits, times)
