"""Filter sharing among tasks: accuracy, cost of one task and parameters stored, beside other ways to share.

`python -m benchmarks.fishnet [--quick] [--data-dir DIR] [--work DIR]`. Every method is trained with the same learning
rates, the best on validation data (first seed) is taken for all seeds; each training is a cell that is kept on disk.
"""

import argparse
import json
import pathlib
import tempfile
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.cells import Cells
from benchmarks.fishnet.training import METHODS, Setting, cell
from keras_efficient import datasets
from keras_efficient.demo.machine import machine

RESULTS = pathlib.Path(__file__).parent.parent / "results"
LEARNING_RATES = (3e-3, 1e-2, 1e-3)
SEEDS = (0, 1, 2)
SETTINGS = {
    "omniglot": Setting(
        width=8, epochs=40, batch_size=128, shift=2, share_rate=0.47, sharing="pool", normalization="shared"
    ),
    "two_digits": Setting(
        width=8, epochs=20, batch_size=128, shift=0, share_rate=0.8, sharing="pool", normalization="shared"
    ),
}
QUICK = {
    "omniglot": Setting(
        width=4, epochs=5, batch_size=128, shift=2, share_rate=0.47, sharing="pool", normalization="shared"
    ),
    "two_digits": Setting(
        width=4, epochs=5, batch_size=128, shift=0, share_rate=0.8, sharing="pool", normalization="shared"
    ),
}
ORDER = tuple(METHODS)


def main() -> None:
    """Prints the tables and one line of JSON; without --quick writes results/fishnet.json too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed and rate, few epochs; nothing is written")
    parser.add_argument("--data-dir", help="directory of mnist.npz and omniglot.npz")
    parser.add_argument("--work", type=pathlib.Path, help="where cells are kept (default: build/fishnet)")
    parser.add_argument("--cells", type=int, help="stop after so many trainings; a later run goes on")
    options = parser.parse_args()
    if options.quick:
        with tempfile.TemporaryDirectory() as work:
            summary = measured(pathlib.Path(work), options.data_dir, QUICK, LEARNING_RATES[:1], SEEDS[:1], None)
    else:
        work = options.work or pathlib.Path("build/fishnet")
        summary = measured(work, options.data_dir, SETTINGS, LEARNING_RATES, SEEDS, options.cells)
    if summary is None:
        return
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "fishnet.json").write_text(json.dumps(summary, indent=1) + "\n")
    print_tables(summary)
    print(json.dumps(summary))


class _EnoughError(Exception):
    """As many cells as were asked for are done."""


def measured(
    work: pathlib.Path,
    data_dir: str | None,
    settings: dict[str, Setting],
    rates: tuple[float, ...],
    seeds: tuple[int, ...],
    limit: int | None,
) -> dict[str, Any] | None:
    """Trains what is missing; None where `limit` came first.

    The first rate and seed of all methods come first, so that an unfinished run already says something.
    """
    cells, done = Cells(work / "cells"), 0

    def trained(data: Any, name: str, method: str, rate: float, seed: int) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            nonlocal done
            if limit is not None and done >= limit:
                raise _EnoughError
            done += 1
            found = cell(method, data, settings[name], rate, seed)
            print(
                f"{name} {method} rate {rate} seed {seed}: {_mean(found, 'validation'):.2f} on validation", flush=True
            )
            return found

        return dict(cells.get(f"{name}/{method}/rate_{rate}_seed_{seed}", make))

    loaded = {name: load(name, data_dir) for name in settings}
    try:
        for rate in rates:
            for name, data in loaded.items():
                for method in ORDER:
                    trained(data, name, method, rate, seeds[0])
        rows = {name: {} for name in settings}
        for name, data in loaded.items():
            for method in ORDER:
                scores = {rate: _mean(trained(data, name, method, rate, seeds[0]), "validation") for rate in rates}
                best = max(scores, key=lambda rate: scores[rate])
                rows[name][method] = {
                    "learning_rate": best,
                    **row([trained(data, name, method, best, seed) for seed in seeds]),
                }
    except _EnoughError:
        return None
    return {
        "claim": "fishnet",
        "machine": machine(),
        "settings": {name: vars(setting) for name, setting in settings.items()},
        "seeds": len(seeds),
        "learning_rates": list(rates),
        "methods": rows,
        "claims": {name: claims(found) for name, found in rows.items()},
    }


def load(name: str, data_dir: str | None) -> datasets.MultiTaskDataset:
    """A data set of the benchmark."""
    if name == "omniglot":
        return datasets.omniglot_alphabets(data_dir)
    return datasets.two_digit_scenes(datasets.load("mnist", data_dir), counts=(5000, 2000, 5000))


def row(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One method: means over seeds, the spread of the accuracy, and every run's accuracy."""
    accuracy = [_mean(run, "test") for run in runs]
    found = {
        "accuracy": float(np.mean(accuracy)),
        "accuracy_spread": float(np.std(accuracy, ddof=1)) if len(accuracy) > 1 else 0.0,
        "accuracies": accuracy,
        "validation": float(np.mean([_mean(run, "validation") for run in runs])),
        "macs_per_task": float(np.mean([run["macs_per_task"] for run in runs])),
        "stored_parameters": float(np.mean([run["stored_parameters"] for run in runs])),
        "seconds": float(np.mean([run["seconds"] for run in runs])),
    }
    if "share_rate" in runs[0]:
        found["share_rate"] = float(np.mean([run["share_rate"] for run in runs]))
    return found


def claims(rows: dict[str, Any]) -> dict[str, Any]:
    """What filter sharing gains and saves, in points of mean accuracy and as ratios.

    Filter sharing and hard sharing each count with the normalisation that is better on validation data.
    """
    better = {
        name: max((name, f"{name}_task_norm"), key=lambda method: rows[method]["validation"])
        for name in ("filter_sharing", "hard_sharing")
    }
    ours, hard = rows[better["filter_sharing"]], rows[better["hard_sharing"]]
    return {
        "methods": better,
        "points_over_hard_sharing": ours["accuracy"] - hard["accuracy"],
        "points_over_cross_stitch": ours["accuracy"] - rows["cross_stitch"]["accuracy"],
        "points_over_single_task": ours["accuracy"] - rows["single_task"]["accuracy"],
        "macs_over_single_task": ours["macs_per_task"] / rows["single_task"]["macs_per_task"],
        "parameters_over_single_task": ours["stored_parameters"] / rows["single_task"]["stored_parameters"],
    }


def _mean(run: dict[str, Any], part: str) -> float:
    return float(np.mean(list(run[part].values())))


def print_tables(summary: dict[str, Any]) -> None:
    """One table per data set."""
    console = Console(width=120)
    for name, rows in summary["methods"].items():
        table = Table("method", "accuracy %", "spread", "MACs per task", "stored parameters", "rate", title=name)
        for method, found in rows.items():
            table.add_row(
                method,
                f"{found['accuracy']:.2f}",
                f"{found['accuracy_spread']:.2f}",
                f"{found['macs_per_task']:,.0f}",
                f"{found['stored_parameters']:,.0f}",
                str(found["learning_rate"]),
            )
        console.print(table)
        for claim, value in summary["claims"][name].items():
            console.print(f"{claim}: {value:.3f}" if isinstance(value, float) else f"{claim}: {value}")


if __name__ == "__main__":
    main()
