"""LC-Net on CIFAR-10: accuracy at five budgets, rivals at one, and what a skipped multiply-add is worth in time.

`python -m benchmarks.lcnet [--net thin|wide] [--quick] [--data-dir DIR] [--work DIR] [--only NETWORK ...] [--seed K]
[--seeds N] [--processes P] [--backend jax] [--finished]`. All networks but the narrow one begin from one dense
network, and all are trained for as many epochs, LC-Nets of further budgets for fewer; trainings, files and evaluations
are kept in the working directory, and an interrupted run goes on with what is left. With --only, just those networks of
one seed are trained, with --processes as many of all seeds as that at the same time; on another backend than
TensorFlow's neither needs TensorFlow, and nothing follows. With --finished nothing is trained: the networks that are
there are evaluated.
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

from benchmarks import side_by_side, training
from benchmarks.cells import Cells
from benchmarks.lcnet import device, pictures
from benchmarks.lcnet.networks import GATED, NETS, Net, Plan, Workshop
from benchmarks.parts import few
from keras_efficient import cost, datasets
from keras_efficient.demo.machine import machine
from keras_efficient.models import gate_statistics

RESULTS = pathlib.Path(__file__).parent.parent / "results"
Measured = tuple[dict[str, Any], np.ndarray]
STEPS = 12
"""Training steps that are timed."""


def main() -> None:
    """Prints the tables and one line of JSON; a full run writes results/lcnet.json and pictures too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small networks, few images; nothing is written")
    parser.add_argument("--net", choices=tuple(NETS), default="thin")
    parser.add_argument("--data-dir", help="directory of cifar10.npz")
    parser.add_argument("--work", type=pathlib.Path, help="where all is kept (default: build/lcnet/<net>)")
    parser.add_argument("--only", nargs="+", metavar="NETWORK", help="train these networks, evaluate nothing")
    parser.add_argument("--seed", type=int, default=0, help="of --only")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--processes", type=int, help="train so many networks at the same time")
    parser.add_argument("--finished", action="store_true", help="train nothing, evaluate what is there")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--backend", help="of Keras")  # read in benchmarks/__init__.py
    options = parser.parse_args()
    net, work = NETS[options.net], options.work or pathlib.Path("build/lcnet") / options.net
    unknown = set(options.only or ()) - {"start", *net.names}
    if unknown:
        parser.error(f"--only: expected some of start, {', '.join(net.names)}, received {', '.join(sorted(unknown))}")
    if options.processes:
        side_by_side.train(trainings(net, work, options), options.processes, work / "logs")
        if keras.backend.backend() != "tensorflow":
            return
    dataset = datasets.load("cifar10", options.data_dir)
    if options.only:
        work.mkdir(parents=True, exist_ok=True)
        for name in options.only:
            Workshop(work, dataset, net.plan, options.seed).network(name)
        return
    if options.quick:
        small = Net(Plan(depth=8, dense=1, gated=2, fine=1, short_gated=1), NETS["thin"].rivals)
        with tempfile.TemporaryDirectory() as folder:
            summary, _ = measured(pathlib.Path(folder), few(dataset, 1280, 500, 500), small, 1, 1)
    else:
        work.mkdir(parents=True, exist_ok=True)
        needed = [work / f"{name}_0.keras" for name in ("dense", net.gated)]
        if options.finished and not all(path.exists() for path in needed):
            parser.error(f"--finished: expected {' and '.join(map(str, needed))}, which are compared, to be there")
        summary, macs = measured(work, dataset, net, options.seeds, options.threads, options.finished)
        name = "lcnet" if options.net == "thin" else f"lcnet_{options.net}"
        (RESULTS / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n")
        pictures.curve(summary, RESULTS / f"{name}.png")
        pictures.cheap_and_dear(macs, summary["dense_macs"], dataset, RESULTS / f"{name}_inputs.png")
    print_tables(summary)
    print(json.dumps(summary))


def trainings(net: Net, work: pathlib.Path, options: argparse.Namespace) -> list[side_by_side.Training]:
    """Those that are missing, in an order in which most can go on side by side."""
    folder = ("--data-dir", options.data_dir) if options.data_dir else ()
    backend = ("--backend", options.backend) if options.backend else ()
    common = ("-m", "benchmarks.lcnet", "--net", options.net, "--work", str(work), *folder, *backend)
    found = []
    for seed in range(options.seeds):
        for name in ("start", *net.names):
            gated = net.gated if name == "frozen" else None
            before = None if name in ("start", "narrow") else "start" if gated is None else f"gated_{gated[3:]}"
            before = "dense" if name == net.taught else before
            needs = () if before is None else (work / f"{before}_{seed}.keras",)
            arguments = (*common, "--only", name, "--seed", str(seed))
            if not (work / f"{name}_{seed}.keras").exists():
                found.append(side_by_side.Training(f"{name}_{seed}", arguments, needs))
    return found


def measured(
    work: pathlib.Path, dataset: datasets.Dataset, net: Net, seeds: int, threads: int, finished: bool = False
) -> Measured:
    """Everything, from training to time, or that of networks that are `finished`; and the MACs of every test image."""
    cells = Cells(work / "cells")
    found: dict[str, Any] = {}
    for name in ("start", *net.names):
        runs = []
        for seed in range(seeds):
            if finished and not all((work / f"{needed}_{seed}.keras").exists() for needed in (name, "dense")):
                continue
            workshop = Workshop(work, dataset, net.plan, seed)
            runs.append(cells.get(f"network/{name}_{seed}", lambda w=workshop, n=name: evaluated(w, n)))
        if not runs:
            continue
        found[name] = {
            "accuracy": float(np.mean([run["accuracy"] for run in runs])),
            "accuracies": [run["accuracy"] for run in runs],
            "share": float(np.mean([run["share"] for run in runs])),
            "gates": runs[0].get("gates"),
        }
    workshop = Workshop(work, dataset, net.plan)
    gated, exported = net.gated, work / "files"
    compared = {
        name: workshop.network(name)
        for name in ("dense", "narrow", gated, net.taught)
        if not finished or (work / f"{name}_0.keras").exists()
    }
    dense = cost.profile(compared["dense"]).macs
    summary: dict[str, Any] = {
        "claim": "lcnet",
        "machine": machine(),
        "plan": dataclasses.asdict(net.plan),
        "dense_macs": dense,
        "networks": found,
        "files": {
            key: value
            for name, model in compared.items()
            for key, value in cells.get(
                f"device/files_{name}", lambda n=name, m=model: device.files(n, m, dataset, exported)
            ).items()
        },
    }
    # What each file spends, image by image, and how often it is right.
    executed = {
        name: {
            form: cells.get(
                f"device/executed_{name}_{form}",
                lambda n=name, f=form: device.executed(exported / f"{n}_{f}.tflite", dataset),
            )
            for form in device.FORMS
        }
        for name in compared
    }
    summary["accuracy_of_files"] = {
        form: {name: files[form]["accuracy"] for name, files in executed.items()} for form in device.FORMS
    }
    summary["agreement"] = cells.get(
        "device/agreement",
        lambda: device.agreement(
            compared[gated], exported / f"{gated}_float32.tflite", dataset, min(500, len(dataset.x_test))
        ),
    )
    macs = np.array(executed[gated]["float32"]["macs"])
    summary["inputs"] = {
        "mean_share": float(macs.mean() / dense),
        "deviation_over_mean": float(macs.std() / macs.mean()),
        "correlation_with_difficulty": correlation(macs, compared["dense"], dataset),
    }
    summary["latency"] = device.latencies(list(compared), dataset, exported, threads)
    summary["training_step"] = cells.get("training_step", lambda: training_step(workshop, net.plan.target))
    summary["claims"] = claims(summary, net, executed)
    return summary, macs


def evaluated(workshop: Workshop, name: str) -> dict[str, Any]:
    """Test accuracy, mean share of the dense multiply-adds, and the gates of an LC-Net on test images."""
    model, dataset = workshop.network(name), workshop.dataset
    entry: dict[str, Any] = {"accuracy": training.accuracy(model, dataset.x_test, dataset.y_test)}
    if name in ("winners", "random_drop"):
        return {**entry, "share": workshop.plan.target}  # by construction
    found = cost.profile(model, dataset.x_test[:2000], batch_size=250)
    assert found.expected_macs is not None
    entry["share"] = found.expected_macs / cost.profile(workshop.dense()).macs
    if name.partition("_")[0] in GATED:
        entry["gates"] = [
            {
                key: None if value != value else value  # what no image reaches has no rate
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


def claims(summary: dict[str, Any], net: Net, executed: dict[str, Any]) -> dict[str, Any]:
    """The figures that the claim stands or falls with."""
    networks, latency, gated = summary["networks"], summary["latency"], net.gated
    found = {
        "lost_points": 100 * (networks["dense"]["accuracy"] - networks[gated]["accuracy"]),
        "lost_points_taught": 100 * (networks["dense"]["accuracy"] - networks[net.taught]["accuracy"])
        if net.taught in networks
        else None,
        "share": networks[gated]["share"],
        "above_rivals_points": {
            name: 100 * (networks[gated]["accuracy"] - networks[name]["accuracy"])
            for name in net.rivals
            if name in networks
        },
        "static_int8_accuracy": summary["accuracy_of_files"]["int8"]["dense"],
        "macs_disagreement": abs(summary["agreement"]["executed_macs"] / summary["agreement"]["profile_macs"] - 1),
    }
    endings = {gated: "", net.taught: "_taught"}
    for name in (gated, net.taught) if net.taught in executed else (gated,):
        for form, suffix in (("float32", ""), ("int8", "_int8")):
            speed_up = latency[form]["dense"]["mean_us"] / latency[form][name]["mean_us"]
            reduction = summary["dense_macs"] / np.mean(executed[name][form]["macs"][: device.IMAGES])
            found[f"speed_up{suffix}{endings[name]}"] = speed_up
            found[f"realised{suffix}{endings[name]}"] = float(speed_up / reduction)
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
        shares = (row[key] for key in ("reached", "open_rate", "deviation", "constant"))
        table.add_row(row["name"], *("-" if share is None else f"{share:.0%}" for share in shares))
    console.print(table)
    for name, value in summary["claims"].items():
        console.print(f"{name}: {value}")


if __name__ == "__main__":
    main()
