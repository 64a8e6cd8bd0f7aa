"""The main job on digits, over three seeds: as accurate as a static network, in half of its compute, and faster.

`python -m benchmarks.main_job [--quick] [--data-dir DIR] [--data NAME]`. Runs `keras-efficient demo` once per
seed, each in a process of its own, and takes the means. An interrupted run goes on with the seeds that are left.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from keras_efficient.demo.losses import losses
from keras_efficient.demo.machine import machine
from keras_efficient.demo.measure import Row

RESULTS = pathlib.Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
QUANTITIES = ("accuracy", "expected_macs", "latency_us", "latency_p95_us", "bytes")
QUICK = ("--epochs", "6")


def main() -> None:
    """Prints the table of means and one line of JSON; without --quick writes results/main_job.json too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed and 6 epochs; nothing is written")
    parser.add_argument("--data", default="digits", help="data set (default: digits)")
    parser.add_argument("--data-dir", help="directory of mnist.npz or cifar10.npz")
    options = parser.parse_args()
    name = "main_job" if options.data == "digits" else f"main_job_{options.data}"
    runs = collect(options, RESULTS / f".{name}.partial.json")
    summary = summarise(runs)
    print_table(summary, options.data)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n")
        (RESULTS / f".{name}.partial.json").unlink(missing_ok=True)
    print(json.dumps(summary))


def collect(options: argparse.Namespace, partial: pathlib.Path) -> dict[str, Any]:
    """The reports by seed; finished seeds are kept in `partial` until all are there."""
    if options.quick:
        return {"0": demo(0, options, QUICK)}
    known: dict[str, Any] = json.loads(partial.read_text()) if partial.exists() else {}
    for seed in SEEDS:
        if str(seed) not in known:
            known[str(seed)] = demo(seed, options)
            partial.parent.mkdir(exist_ok=True)
            partial.write_text(json.dumps(known))
    return known


def demo(seed: int, options: argparse.Namespace, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """`report.json` of one run of the command line."""
    with tempfile.TemporaryDirectory() as directory:
        out = pathlib.Path(directory) / "out"
        words = ["demo", "--out", str(out), "--seed", str(seed), "--data", options.data, *more]
        words += ["--data-dir", options.data_dir] if options.data_dir else []
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "keras_efficient", *words], check=True, stdout=sys.stderr)
        report: dict[str, Any] = json.loads((out / "report.json").read_text())
    report["wall_seconds"] = round(time.monotonic() - started, 1)
    del report["exports"]
    return report


def summarise(runs: dict[str, Any]) -> dict[str, Any]:
    """Means and spreads over the seeds, what was claimed and whether it holds."""
    names = [row["name"] for row in next(iter(runs.values()))["rows"]]
    by_name: dict[str, dict[str, list[float]]] = {name: {quantity: [] for quantity in QUANTITIES} for name in names}
    for run in runs.values():
        for row in run["rows"]:
            for quantity in QUANTITIES:
                by_name[row["name"]][quantity].append(row[quantity])
    rows = []
    for name, columns in by_name.items():
        means: dict[str, float] = {quantity: float(np.mean(values)) for quantity, values in columns.items()}
        means["bytes"] = round(means["bytes"])
        spreads = {f"{quantity}_spread": float(np.std(values)) for quantity, values in columns.items()}
        rows.append({"name": name, **means, **spreads})
    return {
        "claim": "main_job",
        "data": next(iter(runs.values()))["data"],
        "machine": machine(),
        "seeds": [int(seed) for seed in runs],
        "rows": rows,
        "claims": claims({row["name"]: row for row in rows}, runs),
        "losses": losses([Row(**{key: row[key] for key in ("name", *QUANTITIES)}) for row in rows]),
        "runs": runs,
    }


def claims(rows: dict[str, dict[str, Any]], runs: dict[str, Any]) -> dict[str, Any]:
    """What the main job must show, in numbers and whether it does."""
    static, small, ours = rows["static"], rows["static_small"], rows["dynamic_delegate"]
    behind = 100 * (static["accuracy"] - ours["accuracy"])
    share = ours["expected_macs"] / static["expected_macs"]
    ahead = 100 * (ours["accuracy"] - small["accuracy"])
    ratio = ours["latency_us"] / static["latency_us"]
    gaps = [run["parity"][key] for run in runs.values() for key in ("keras_vs_stock", "stock_vs_delegate")]
    return {
        "points_behind_static": {"value": behind, "limit": 0.5, "holds": behind <= 0.5},
        "share_of_static_macs": {"value": share, "limit": 0.5, "holds": share <= 0.5},
        "points_ahead_of_static_small": {"value": ahead, "limit": 0.0, "holds": ahead >= 0.0},
        "latency_beside_static": {"value": ratio, "limit": 1.0, "holds": ratio < 1.0},
        "largest_difference": {"value": max(gaps), "limit": 1e-4, "holds": max(gaps) < 1e-4},
    }


def print_table(summary: dict[str, Any], data: str) -> None:
    """Means over the seeds, claims and losses."""
    console = Console(width=120)
    table = Table("", *QUANTITIES, title=f"{data}, mean of seeds {summary['seeds']}", title_justify="left")
    for row in summary["rows"]:
        accuracy = f"{row['accuracy']:.2%} +- {row['accuracy_spread']:.2%}"
        latency = f"{row['latency_us']:.1f} +- {row['latency_us_spread']:.1f}"
        table.add_row(
            row["name"],
            accuracy,
            f"{row['expected_macs']:,.0f}",
            latency,
            f"{row['latency_p95_us']:.1f}",
            f"{row['bytes']:,.0f}",
        )
    console.print(table)
    for name, claim in summary["claims"].items():
        console.print(
            f"{'holds' if claim['holds'] else 'FAILS'}: {name} {claim['value']:.4g} (limit {claim['limit']:g})"
        )
    for sentence in summary["losses"]:
        console.print(f"lost: {sentence}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
