"""LC-Net on CIFAR-10: accuracy at five budgets, rivals at one, and what a skipped multiply-add is worth in time.

`python -m benchmarks.lcnet [--quick] [--data-dir DIR] [--work DIR] [--only NETWORK ...] [--seeds N]`. All networks but
the narrow one begin from one dense network, and all are trained for as many epochs; trainings, files and evaluations
are kept in the working directory, and an interrupted run goes on with what is left. With --only, just those networks
are trained.
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

from benchmarks import training
from benchmarks.cells import Cells
from benchmarks.lcnet import device, pictures
from benchmarks.lcnet.networks import RIVALS, TARGETS, Plan, Workshop, plain
from benchmarks.parts import few
from keras_efficient import cost, datasets
from keras_efficient.demo.machine import machine
from keras_efficient.models import gate_statistics

RESULTS = pathlib.Path(__file__).parent.parent / "results"
STEPS = 12
"""Training steps that are timed."""


def main() -> None:
    """Prints the tables and one line of JSON; a full run writes results/lcnet.json and pictures too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small networks, few images; nothing is written")
    parser.add_argument("--data-dir", help="directory of cifar10.npz")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/lcnet"))
    parser.add_argument("--only", nargs="+", choices=names(TARGETS), help="train these networks, evaluate nothing")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    dataset = datasets.load("cifar10", options.data_dir)
    if options.quick:
        with tempfile.TemporaryDirectory() as work:
            small = Plan(depth=8, dense=1, gated=2, fine=1)
            summary = measured(pathlib.Path(work), few(dataset, 1280, 500, 500), small, TARGETS[:1], 1, 1)
    else:
        options.work.mkdir(parents=True, exist_ok=True)
        if options.only:
            for seed in range(options.seeds):
                for name in options.only:
                    Workshop(options.work, dataset, Plan(), seed).network(name)
            return
        summary = measured(options.work, dataset, Plan(), TARGETS, options.seeds, options.threads)
        (RESULTS / "lcnet.json").write_text(json.dumps(summary, indent=1) + "\n")
        pictures.curve(summary, RESULTS / "lcnet.png")
    print_tables(summary)
    print(json.dumps(summary))


def names(targets: tuple[float, ...]) -> list[str]:
    """All networks that are compared, the one that the others are measured by first."""
    return ["dense", *[f"lc_{target:g}" for target in targets], *RIVALS]


def measured(
    work: pathlib.Path, dataset: datasets.Dataset, plan: Plan, targets: tuple[float, ...], seeds: int, threads: int
) -> dict[str, Any]:
    """Everything, from training to time."""
    cells = Cells(work / "cells")
    found: dict[str, Any] = {}
    for name in names(targets):
        runs = []
        for seed in range(seeds):
            workshop = Workshop(work, dataset, plan, seed)
            runs.append(cells.get(f"network/{name}_{seed}", lambda w=workshop, n=name: evaluated(w, n)))
        found[name] = {
            "accuracy": float(np.mean([run["accuracy"] for run in runs])),
            "accuracies": [run["accuracy"] for run in runs],
            "share": float(np.mean([run["share"] for run in runs])),
            "gates": runs[0].get("gates"),
        }
    workshop = Workshop(work, dataset, plan)
    gated, exported = f"lc_{targets[0]:g}", work / "files"
    pair = {"dense": plain(workshop.dense(), plan), gated: workshop.network(gated)}
    dense = cost.profile(pair["dense"]).macs
    summary: dict[str, Any] = {
        "claim": "lcnet",
        "machine": machine(),
        "plan": dataclasses.asdict(plan),
        "dense_macs": dense,
        "networks": found,
        "files": cells.get("device/files", lambda: device.files(pair, dataset, exported)),
    }
    spent = {
        form: cells.get(
            f"device/executed_{form}", lambda f=form: device.executed(exported / f"{gated}_{f}.tflite", dataset)
        )
        for form in device.FORMS
    }
    dense_files = {
        form: cells.get(f"device/dense_{form}", lambda f=form: device.executed(exported / f"dense_{f}.tflite", dataset))
        for form in device.FORMS
    }
    summary["accuracy_of_files"] = {
        form: {"dense": dense_files[form]["accuracy"], gated: spent[form]["accuracy"]} for form in device.FORMS
    }
    summary["agreement"] = cells.get(
        "device/agreement",
        lambda: device.agreement(
            pair[gated], exported / f"{gated}_float32.tflite", dataset, min(500, len(dataset.x_test))
        ),
    )
    macs = np.array(spent["float32"]["macs"])
    summary["inputs"] = {
        "mean_share": float(macs.mean() / dense),
        "deviation_over_mean": float(macs.std() / macs.mean()),
        "correlation_with_difficulty": correlation(macs, pair["dense"], dataset),
    }
    if len(dataset.x_test) > 1000:
        pictures.cheap_and_dear(macs, dense, dataset, RESULTS / "lcnet_inputs.png")
    summary["latency"] = device.latencies(list(pair), dataset, exported, threads)
    summary["training_step"] = cells.get("training_step", lambda: training_step(workshop, targets[0]))
    summary["claims"] = claims(summary, gated, spent)
    return summary


def evaluated(workshop: Workshop, name: str) -> dict[str, Any]:
    """Test accuracy, mean share of the dense multiply-adds, and the gates of an LC-Net on test images."""
    model, dataset = workshop.network(name), workshop.dataset
    entry: dict[str, Any] = {"accuracy": training.accuracy(model, dataset.x_test, dataset.y_test)}
    if name in ("winners", "random_drop"):
        return {**entry, "share": TARGETS[0]}  # by construction
    found = cost.profile(model, dataset.x_test[:2000], batch_size=250)
    assert found.expected_macs is not None
    entry["share"] = found.expected_macs / cost.profile(workshop.dense()).macs
    if name.startswith("lc_"):
        entry["gates"] = [
            {
                key: value
                for key, value in dataclasses.asdict(layer).items()
                if key in ("name", "reached", "open_rate", "deviation", "constant", "scale")
            }
            for layer in gate_statistics(model, dataset.x_test[:2000])
        ]
    return entry


def correlation(macs: np.ndarray, dense: keras.Model, dataset: datasets.Dataset) -> float:
    """Of the multiply-adds of an image with its loss under the dense network, by ranks (Spearman)."""
    logits = dense.predict(dataset.x_test, batch_size=250, verbose=0).astype("float64")
    logits -= logits.max(axis=1, keepdims=True)
    loss = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), dataset.y_test]
    ranks = [np.argsort(np.argsort(values, kind="stable")) for values in (macs, loss)]
    return float(np.corrcoef(*ranks)[0, 1])


def training_step(workshop: Workshop, target: float) -> dict[str, float]:
    """Median seconds of a training step, with gates and without."""
    from keras_efficient.callbacks import ComputeBudget

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.seconds: list[float] = []

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self._start = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.seconds.append(time.perf_counter() - self._start)

    x, y = (array[: STEPS * training.BATCH] for array in (workshop.dataset.x_train, workshop.dataset.y_train))
    found = {}
    for name, model in {"dense": workshop.dense(), "gated": workshop.gated(target)}.items():
        model.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        clock = Clock()
        budget = [ComputeBudget(target)] if name == "gated" else []
        model.fit(x, y, batch_size=training.BATCH, epochs=2, verbose=0, callbacks=[clock, *budget])
        found[name] = float(np.median(clock.seconds[len(clock.seconds) // 2 :]))
    return {**found, "ratio": found["gated"] / found["dense"]}


def claims(summary: dict[str, Any], gated: str, spent: dict[str, Any]) -> dict[str, Any]:
    """The figures that the claim stands or falls with."""
    networks, latency = summary["networks"], summary["latency"]
    found = {
        "lost_points": 100 * (networks["dense"]["accuracy"] - networks[gated]["accuracy"]),
        "share": networks[gated]["share"],
        "above_rivals_points": {
            name: 100 * (networks[gated]["accuracy"] - networks[name]["accuracy"]) for name in RIVALS
        },
        "static_int8_accuracy": summary["accuracy_of_files"]["int8"]["dense"],
        "macs_disagreement": abs(summary["agreement"]["executed_macs"] / summary["agreement"]["profile_macs"] - 1),
    }
    for form, suffix in (("float32", ""), ("int8", "_int8")):
        speed_up = latency[form]["dense"]["mean_us"] / latency[form][gated]["mean_us"]
        found[f"speed_up{suffix}"] = speed_up
        reduction = summary["dense_macs"] / np.mean(spent[form]["macs"][: device.IMAGES])
        found[f"realised{suffix}"] = float(speed_up / reduction)
    return found


def print_tables(summary: dict[str, Any]) -> None:
    """Accuracy and cost; time; the gates of the first LC-Net."""
    console = Console(width=120)
    table = Table("network", "accuracy %", "share of MACs", title="CIFAR-10, test images")
    for name, row in summary["networks"].items():
        table.add_row(name, f"{100 * row['accuracy']:.2f}", f"{row['share']:.3f}")
    console.print(table)
    table = Table("network", "mean us", "p95 us", "int8 mean us", "int8 p95 us", title="latency, batch 1")
    for name in summary["latency"]["float32"]:
        rows = [summary["latency"][form][name] for form in device.FORMS]
        table.add_row(name, *(f"{row[key]:.1f}" for row in rows for key in ("mean_us", "p95_us")))
    console.print(table)
    gates = next(row["gates"] for row in summary["networks"].values() if row["gates"])
    table = Table("gates", "reached", "open", "+- over inputs", "constant", title="gates")
    for row in gates:
        table.add_row(row["name"], *(f"{row[key]:.0%}" for key in ("reached", "open_rate", "deviation", "constant")))
    console.print(table)
    for name, value in summary["claims"].items():
        console.print(f"{name}: {value}")


if __name__ == "__main__":
    main()
