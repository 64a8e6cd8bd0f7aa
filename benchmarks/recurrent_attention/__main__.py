"""Recurrent attention on MNIST's digits: near, translated, among clutter; guided attention on scenes of two digits.

`python -m benchmarks.recurrent_attention [--quick] [--data-dir DIR] [--work DIR] [--only TASK ...]`. Networks are
trained once and kept in the working directory, evaluations are cells there: an interrupted run goes on with what is
left.
`python -m benchmarks.recurrent_attention.networks NAME --minutes M` trains one network in pieces.
"""

import argparse
import dataclasses
import json
import pathlib
import tempfile
import time
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.cells import Cells
from benchmarks.parts import few
from benchmarks.recurrent_attention import networks, regions
from keras_efficient import cost, datasets, policies, tflite_export
from keras_efficient.demo.machine import machine
from keras_efficient.models import RecurrentAttention

RESULTS = pathlib.Path(__file__).parent.parent / "results"
TASKS = (*networks.RECIPES, "regions")
FILE_IMAGES = 1000
"""Test images that are run one by one through the exported files."""
AGREEMENT = 1e-4
BUDGETS = (0.4, 0.6, 0.8)


def main() -> None:
    """Prints tables and one line of JSON; a full run also writes results/recurrent_attention.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few images and epochs; nothing is written")
    parser.add_argument("--data-dir", help="directory of mnist.npz")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/recurrent_attention"))
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS), help="what to run")
    options = parser.parse_args()
    dataset = datasets.load("mnist", options.data_dir)
    started = time.monotonic()
    if options.quick:
        with tempfile.TemporaryDirectory() as work:
            found = measured(pathlib.Path(work), few(dataset, 1024, 200, 200), options.only, quick=True)
    else:
        found = measured(options.work, dataset, options.only)
        earlier = RESULTS / "recurrent_attention.json"
        known = json.loads(earlier.read_text()) if earlier.exists() else {}
        found["tasks"] = {**known.get("tasks", {}), **found["tasks"]}
        earlier.write_text(json.dumps(found, indent=1) + "\n")
    print_tables(found)
    print(json.dumps({**found, "seconds": round(time.monotonic() - started, 1)}))


def measured(work: pathlib.Path, dataset: datasets.Dataset, only: list[str], quick: bool = False) -> dict[str, Any]:
    """The chosen tasks' figures."""
    work.mkdir(parents=True, exist_ok=True)
    cells = Cells(work / "cells")
    tasks: dict[str, Any] = {}
    for name in only:
        if name == "regions":
            tasks[name] = regions.curve(dataset, work, quick)
            continue
        recipe = networks.RECIPES[name]
        if quick:
            recipe = dataclasses.replace(recipe, epochs=1)
        model = networks.trained(work / f"{name}.keras", recipe, dataset)
        assert model is not None
        tasks[name] = cells.get(f"network/{name}", lambda m=model, r=recipe: evaluated(m, r, dataset, work, quick))
    return {"claim": "recurrent_attention", "machine": machine(), "tasks": tasks}


def evaluated(
    model: keras.Model, recipe: networks.Recipe, dataset: datasets.Dataset, work: pathlib.Path, quick: bool
) -> dict[str, Any]:
    """Test error, multiply-adds, and what the exported files make of it."""
    x, y = networks.images(dataset, recipe.task, "test")
    entry: dict[str, Any] = {"epochs": recipe.epochs, "macs": cost.profile(model).macs}
    if not isinstance(model, RecurrentAttention):
        logits = model.predict(x, batch_size=500, verbose=0)
        return {**entry, "error": error(logits, y)}
    logits, locations = model.predict_path(x, batch_size=500, verbose=0)
    entry["errors"] = [error(logits[:, k], y) for k in range(model.num_glimpses)]
    entry["error"] = entry["errors"][-1]
    entry["spread_of_locations"] = [float(value) for value in locations.std(0).mean(-1)]
    entry["files"] = files(model, x, y, logits, locations, dataset, recipe.task, work, 32 if quick else FILE_IMAGES)
    entry["stopping"] = stopping(model, dataset, recipe.task)
    return entry


def error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Wrong answers in percent."""
    return float(100 * (logits.argmax(-1) != labels).mean())


def files(
    model: RecurrentAttention,
    x: np.ndarray,
    y: np.ndarray,
    logits: np.ndarray,
    locations: np.ndarray,
    dataset: datasets.Dataset,
    task: str,
    work: pathlib.Path,
    count: int,
) -> dict[str, Any]:
    """Largest differences between the files and Keras over whole sequences, and the files' errors on those images."""
    held_out, _ = networks.images(dataset, task, "validation")
    found: dict[str, Any] = {"images": count, "keras_error": error(logits[:count, -1], y[:count])}
    for form in ("float32", "int8"):
        path = work / f"{task}_{form}.tflite"
        report = tflite_export.export(
            model, path, representative_data=held_out[:500], quantize=None if form == "float32" else form
        )
        result = tflite_export.load(path, delegate="none")(x[:count])
        differences = np.abs(result.output - logits[:count, -1]).max(axis=1)
        found[form] = {
            "bytes": report.bytes,
            "error": error(result.output, y[:count]),
            "locations_difference": float(np.abs(result.outputs["locations"] - locations[:count]).max()),
        }
        if form == "float32":
            # A location within rounding of where the next pixel begins may fall on either side of it.
            found[form]["images_beyond_1e-4"] = int((differences > AGREEMENT).sum())
            found[form]["logits_difference"] = float(differences[differences <= AGREEMENT].max(initial=0.0))
    return found


def stopping(model: RecurrentAttention, dataset: datasets.Dataset, task: str) -> list[dict[str, float]]:
    """Test error of policies that may spend so much of the glimpses' cost, tuned on validation images."""
    parts = [networks.images(dataset, task, part) for part in ("validation", "test")]
    held_out, test = (policies.ExitData(**model.exit_data(x, y, batch_size=500)) for x, y in parts)
    found = []
    for budget in BUDGETS:
        result = policies.evaluate(policies.ThresholdPolicy.tune(held_out, budget=budget), test)
        found.append({"budget": budget, "cost": result.cost, "error": 100 * (1 - result.accuracy)})
    return found


def print_tables(found: dict[str, Any]) -> None:
    """Tables for people."""
    console = Console(width=120)
    table = Table("network", "test error %", "after each glimpse", "MACs", "int8 error %", title="Digits")
    for name in networks.RECIPES:
        entry = found["tasks"].get(name)
        if entry:
            each = " ".join(f"{value:.2f}" for value in entry.get("errors", []))
            int8 = entry.get("files", {}).get("int8", {}).get("error")
            table.add_row(
                name, f"{entry['error']:.2f}", each, f"{entry['macs']:,.0f}", "" if int8 is None else f"{int8:.2f}"
            )
    console.print(table)
    if "regions" in found["tasks"]:
        table = Table("network", "accuracy %", "+-", "digits found %", title="Sums of two digits")
        for name, entry in found["tasks"]["regions"].items():
            figures = (100 * entry["accuracy"], 100 * entry["spread"], 100 * entry["regions_found"])
            table.add_row(name, *[f"{value:.1f}" for value in figures])
        console.print(table)


if __name__ == "__main__":
    main()
