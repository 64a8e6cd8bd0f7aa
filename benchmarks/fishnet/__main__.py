"""Filter sharing among tasks: accuracy, cost of one task and parameters stored, beside other ways to share.

`python -m benchmarks.fishnet [--quick] [--data-dir DIR] [--work DIR] [--part k/n] [--only CELL]`. Every method is
trained with the same learning rates, the best on validation data (first seed) is taken for all seeds; each training is
a cell that is kept on disk. Several processes may train at once, `--part 0/4` to `--part 3/4` with the same `--work`:
first all rates of the first seed; where those are there already, the other seeds. A run without `--part` then writes
the table, after training what is missing, or with `--finished` of what is there.
"""

import argparse
import dataclasses
import json
import pathlib
import tempfile
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.cells import Cells
from benchmarks.fishnet.backbone import backbone
from benchmarks.fishnet.training import METHODS, Setting, Trainer, filter_sharing
from keras_efficient import datasets
from keras_efficient.demo.machine import machine

RESULTS = pathlib.Path(__file__).parent.parent / "results"
LEARNING_RATES = (1e-2, 2e-2)
SEEDS = (0, 1, 2)
SETTINGS = {
    "two_digits": Setting(
        width=8, epochs=15, batch_size=128, shift=0, rotation=0, share_rate=0.84, leaner=0.92, warmup=0.3, search=0.1
    ),
    "omniglot": Setting(
        width=8, epochs=75, batch_size=64, shift=2, rotation=0, share_rate=0.5, leaner=0.85, warmup=0.2, search=0.1
    ),
}
QUICK = {name: dataclasses.replace(setting, width=4, epochs=5) for name, setting in SETTINGS.items()}
ORDER = tuple(METHODS)


def main() -> None:
    """Prints the tables and one line of JSON; without --quick writes results/fishnet.json too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed and rate, few epochs; nothing is written")
    parser.add_argument("--data-dir", help="directory of mnist.npz and omniglot.npz")
    parser.add_argument("--work", type=pathlib.Path, help="where cells are kept (default: build/fishnet)")
    parser.add_argument("--part", type=_part, help="k/n: trains every n-th cell from the k-th on; no table")
    parser.add_argument("--finished", action="store_true", help="trains nothing; a table of the cells that are there")
    parser.add_argument(
        "--only", nargs="+", help="trains the cells of these names, such as omniglot/hard_sharing/rate_0.01_seed_0"
    )
    options = parser.parse_args()
    if options.quick:
        with tempfile.TemporaryDirectory() as work:
            grid = Grid(pathlib.Path(work), options.data_dir, QUICK, LEARNING_RATES[:1], SEEDS[:1])
            summary = grid.summary()
    else:
        grid = Grid(options.work or pathlib.Path("build/fishnet"), options.data_dir, SETTINGS, LEARNING_RATES, SEEDS)
        if options.only or options.part:
            grid.train(options.only or grid.part(*options.part))
            return
        summary = grid.summary(options.finished)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "fishnet.json").write_text(json.dumps(summary, indent=1) + "\n")
    print_tables(summary)
    print(json.dumps(summary))


def _part(text: str) -> tuple[int, int]:
    k, _, n = text.partition("/")
    if not 0 <= int(k) < int(n):
        raise argparse.ArgumentTypeError(f"expected k/n with k from 0 to n - 1, received {text}")
    return int(k), int(n)


class Grid:
    """All trainings of the benchmark, by name `data/method/rate_R_seed_S`."""

    def __init__(
        self,
        work: pathlib.Path,
        data_dir: str | None,
        settings: dict[str, Setting],
        rates: tuple[float, ...],
        seeds: tuple[int, ...],
    ) -> None:
        self.cells = Cells(work / "cells")
        self.settings, self.rates, self.seeds = settings, rates, seeds
        self._data_dir = data_dir
        self._trainers: dict[str, Trainer] = {}

    def summary(self, finished: bool = False) -> dict[str, Any]:
        """The results of all cells; trains what is missing, or leaves it out where only `finished` ones are wanted."""
        rows: dict[str, dict[str, Any]] = {}
        for name in self.settings:
            methods = [method for method in ORDER if not finished or self._rates(name, method)]
            rows[name] = {method: self._row(name, method, finished) for method in methods}
        ours = [name for name, found in rows.items() if "filter_sharing" in found]
        return {
            "claim": "fishnet",
            "machine": machine(),
            "settings": {name: vars(setting) for name, setting in self.settings.items()},
            "seeds": list(self.seeds),
            "learning_rates": list(self.rates),
            "methods": rows,
            "claims": {name: claims(rows[name]) for name in ours},
            "delivery": {name: self.delivered(name, finished) for name in ours},
        }

    def _rates(self, name: str, method: str) -> list[float]:
        """The learning rates with which the first seed has been trained."""
        return [rate for rate in self.rates if self._path(_named(name, method, rate, self.seeds[0]), ".json").exists()]

    def _row(self, name: str, method: str, finished: bool = False) -> dict[str, Any]:
        best = self._best_rate(name, method, finished)
        cells = {seed: _named(name, method, best, seed) for seed in self.seeds}
        seeds = [seed for seed, cell in cells.items() if not finished or self._path(cell, ".json").exists()]
        return {"learning_rate": best, "seeds": seeds, **row([self._cell(cells[seed]) for seed in seeds])}

    def _best_rate(self, name: str, method: str, finished: bool = False) -> float:
        """The rate that is best on validation data, with the first seed."""
        scores = {
            rate: _mean(self._cell(_named(name, method, rate, self.seeds[0])), "validation")
            for rate in (self._rates(name, method) if finished else self.rates)
        }
        return max(scores, key=lambda rate: scores[rate])

    def part(self, k: int, n: int) -> list[str]:
        """Every n-th cell of the first seed; once that is complete for a method, of its other seeds too."""
        first = [
            _named(name, method, rate, self.seeds[0])
            for rate in self.rates
            for name in self.settings
            for method in ORDER
        ]
        done = {name for name in first if self._path(name, ".json").exists()}
        others = [
            _named(name, method, self._best_rate(name, method), seed)
            for name in self.settings
            for method in ORDER
            if {_named(name, method, rate, self.seeds[0]) for rate in self.rates} <= done
            for seed in self.seeds[1:]
        ]
        return first[k::n] + others[k::n]

    def trainer(self, name: str) -> Trainer:
        """Trains on a data set, which is loaded once."""
        if name not in self._trainers:
            self._trainers[name] = Trainer(load(name, self._data_dir), self.settings[name])
        return self._trainers[name]

    def delivered(self, name: str, finished: bool = False) -> dict[str, Any]:
        """What the network of filter sharing, first seed, delivers: bytes, agreement, latency; needs TensorFlow."""
        setting = self.settings[name]

        def make() -> dict[str, Any]:
            from benchmarks.fishnet.delivery import delivery

            data, best = self.trainer(name).data, self._best_rate(name, "filter_sharing", finished)
            model = filter_sharing(data, setting, self.seeds[0])
            with np.load(self._path(_named(name, "filter_sharing", best, self.seeds[0]), ".npz")) as weights:
                model.set_weights([weights[key] for key in weights.files])
            trunk = backbone(model.input.shape[1:], setting.width, 0)
            head = keras.layers.Dense(max(data.num_classes.values()))
            return delivery(model, data, keras.Model(trunk.input, head(trunk.output)))

        return dict(self.cells.get(f"{name}/delivery", make))

    def _path(self, name: str, kind: str) -> pathlib.Path:
        return self.cells.directory / f"{name}{kind}"

    def train(self, names: list[str]) -> None:
        """Trains the cells of these names that are missing."""
        for name in names:
            self._cell(name)

    def _cell(self, cell_name: str) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            name, method, options = cell_name.split("/")
            _, rate, _, seed = options.split("_")
            weights = self._path(cell_name, ".npz") if int(seed) == self.seeds[0] else None
            found = self.trainer(name).cell(method, float(rate), int(seed), weights)
            score, seconds = _mean(found, "validation"), found["seconds"]
            print(f"{cell_name}: {score:.2f} on validation data, {seconds:.0f} s", flush=True)
            return found

        return dict(self.cells.get(cell_name, make))


def _named(name: str, method: str, rate: float, seed: int) -> str:
    return f"{name}/{method}/rate_{rate}_seed_{seed}"


def load(name: str, data_dir: str | None) -> datasets.MultiTaskDataset:
    """A data set of the benchmark."""
    if name == "omniglot":
        return datasets.omniglot_alphabets(data_dir)
    return datasets.two_digit_scenes(datasets.load("mnist", data_dir), counts=(2000, 2000, 5000))


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
        "processor_seconds": float(np.mean([run["processor_seconds"] for run in runs])),
    }
    if "share_rate" in runs[0]:
        found["share_rate"] = float(np.mean([run["share_rate"] for run in runs]))
    return found


def claims(rows: dict[str, Any]) -> dict[str, float]:
    """What filter sharing gains and saves, in points of mean accuracy and as ratios."""
    ours = rows["filter_sharing"]
    rivals = {name: found for name, found in rows.items() if found is not ours}
    found = {f"points_over_{name}": ours["accuracy"] - rival["accuracy"] for name, rival in rivals.items()}
    if "single_task" in rivals:
        for name, key in (("macs", "macs_per_task"), ("parameters", "stored_parameters")):
            found[f"{name}_over_single_task"] = ours[key] / rivals["single_task"][key]
    return found


def _mean(run: dict[str, Any], part: str) -> float:
    return float(np.mean(list(run[part].values())))


def print_tables(summary: dict[str, Any]) -> None:
    """One table per data set."""
    console = Console(width=120)
    for name, rows in summary["methods"].items():
        table = Table(
            "method", "seeds", "accuracy %", "spread", "MACs per task", "stored parameters", "rate", title=name
        )
        for method, found in rows.items():
            table.add_row(
                method,
                str(len(found["seeds"])),
                f"{found['accuracy']:.2f}",
                f"{found['accuracy_spread']:.2f}",
                f"{found['macs_per_task']:,.0f}",
                f"{found['stored_parameters']:,.0f}",
                str(found["learning_rate"]),
            )
        console.print(table)
        for claim, value in summary["claims"].get(name, {}).items():
            console.print(f"{claim}: {value:.3f}")


if __name__ == "__main__":
    main()
