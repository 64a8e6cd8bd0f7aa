"""`keras-efficient benchmark`: latency of a file, stock and with the delegate in turns."""

import argparse
import json
import pathlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from keras_efficient.cli.files import arrays_by_name, existing, made_console

Inputs = dict[str, NDArray[Any]]
NOISE = 64  # samples


def run(options: argparse.Namespace) -> None:
    """Loads the file both ways, times them in turns, prints a table, or JSON with `--json`."""
    file = existing(options.file, ".tflite")
    data = None if options.data is None else arrays_by_name(options.data)
    found = measure(file, options.delegate, options.threads, options.runs, data, options.task)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)


def measure(
    file: pathlib.Path, delegate: str, threads: int, runs: int, data: Any = None, task: str | None = None
) -> dict[str, Any]:
    """Latency of one sample at a time, stock and (unless `delegate` is "none") with the delegate, in turns.

    Of a file of all tasks, `task` is the one that is measured.

    Returns:
        Plain values: per row mean, p50 and p95 in microseconds, the share of inputs per exit and mean executed MACs.
    """
    from keras_efficient import tflite_export
    from keras_efficient.demo import timing

    wanted = {"stock": "none"} if delegate == "none" else {"stock": "none", "delegate": delegate}
    runners, notes = {}, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the missing library is said below
        if delegate == "auto":
            try:
                tflite_export.delegate_path()
            except FileNotFoundError as error:
                notes.append(str(error))
                del wanted["delegate"]
        for label, name in wanted.items():
            try:
                runners[label] = tflite_export.load(file, delegate=name, num_threads=threads, task=task)
            except ValueError as error:
                if label == "delegate" or len(wanted) == 1:
                    raise
                notes.append(f"Not measured stock: {error}")
    first = next(iter(runners.values()))
    if isinstance(first, tflite_export.StagedRunner):
        raise ValueError(
            f"Invalid file. Expected one signature; `tflite_export.measure_stages` times staged files. Received: {file}"
        )
    arrays = sample_inputs(first.inputs, {name: detail["dtype"] for name, detail in first.input_details.items()}, data)
    count = len(next(iter(arrays.values())))
    results = {label: runner(**arrays) for label, runner in runners.items()}
    timers = {label: timing.Timer(file, wanted[label], threads, task) for label in runners}
    fed = {**arrays, **first.default_budgets(count)}
    by_index = {int(detail["index"]): fed[name] for name, detail in first.input_details.items()}
    ordered = [by_index[index] for index in next(iter(timers.values())).indices]
    times = timing.in_turns(timers, [[array[i : i + 1] for array in ordered] for i in range(count)], runs)
    rows = {}
    for label, runner in runners.items():
        result = results[label]
        rows[label] = {**timing.summary(times[label]), "executed_macs": float(result.executed_macs.mean())}
        if result.exit_index is not None:
            rows[label]["exits"] = (
                np.bincount(result.exit_index, minlength=len(runner.metadata["exits"])) / count
            ).tolist()
    return {
        "file": str(file),
        **({} if task is None else {"task": task}),
        "threads": threads,
        "runs": runs,
        "inputs": "noise" if data is None else "data",
        "rows": rows,
        "notes": notes,
    }


def sample_inputs(shapes: dict[str, tuple[int, ...]], dtypes: dict[str, Any], data: Any) -> Inputs:
    """The given inputs by name, or 64 samples of seeded noise."""
    if data is not None:
        given = data if isinstance(data, dict) else {next(iter(shapes)): data}
        if set(given) != set(shapes):
            raise ValueError(f"Invalid arrays in --data. Expected {sorted(shapes)}. Received: {sorted(given)}")
        return {name: np.asarray(array, dtypes[name]) for name, array in given.items()}
    rng = np.random.default_rng(0)
    return {name: rng.uniform(size=(NOISE, *shape[1:])).astype(dtypes[name]) for name, shape in shapes.items()}


def _print(found: dict[str, Any]) -> None:
    table = Table(
        "",
        "mean",
        "p50",
        "p95",
        "beside stock",
        "MACs executed",
        "exits taken",
        title=found["file"] + (f", task {found['task']}" if "task" in found else ""),
        title_justify="left",
    )
    stock = found["rows"].get("stock", {}).get("mean_us")
    for label, row in found["rows"].items():
        ratio = f"{row['mean_us'] / stock:.2f} x" if stock else "-"
        exits = " ".join(f"{share:.0%}" for share in row.get("exits", [])) or "-"
        columns = [f"{row[key]:,.1f} us" for key in ("mean_us", "p50_us", "p95_us")]
        table.add_row(label, *columns, ratio, f"{row['executed_macs']:,.0f}", exits)
    console = made_console()
    console.print(table)
    what = (
        "noise (real inputs may take other exits: --data FILE.npz)" if found["inputs"] == "noise" else "the given data"
    )
    console.print(f"{found['runs']} runs each, in turns, batch 1, {found['threads']} thread(s), on {what}")
    for note in found["notes"]:
        console.print(note, markup=False)
