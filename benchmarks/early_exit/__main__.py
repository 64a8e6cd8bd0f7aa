"""Early exits on CIFAR-10: what policies earn, what exits save on the device, beside static networks of equal cost.

`python -m benchmarks.early_exit [--quick] [--data-dir DIR] [--work DIR]`. One thin ResNet with an exit behind every
block, and static ones, trained alike; training, policies and exports go on where they were interrupted.
"""

import argparse
import json
import pathlib
import tempfile
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import training
from benchmarks.cells import Cells
from benchmarks.early_exit import curves, device, networks, pictures
from benchmarks.early_exit.held_out import exit_data
from benchmarks.parts import few
from keras_efficient import cost, datasets, policies
from keras_efficient.demo.machine import machine
from keras_efficient.models import MultiExit

RESULTS = pathlib.Path(__file__).parent.parent / "results"
DEPTH = 20
STATIC_DEPTHS = (8, 14)
EPOCHS = {"multi_exit": 20, "static": 18}
BUDGET = 0.5  # of the operating point that is exported
HALF = 0.5  # what half the compute costs in accuracy is told beside it
LEAST_SHARE = 0.04  # of the inputs that leave at an exit which the exported file keeps


def main() -> None:
    """Prints the tables and one line of JSON; without --quick writes results/early_exit.json and .png too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small networks, few images; nothing is written")
    parser.add_argument("--data-dir", help="directory of cifar10.npz")
    parser.add_argument("--work", type=pathlib.Path, help="where cells are kept (default: build/early_exit)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    dataset = datasets.load("cifar10", options.data_dir)
    if options.quick:
        with tempfile.TemporaryDirectory() as work:
            summary = measured(
                pathlib.Path(work), few(dataset, 2560, 500, 500), 8, (), dict.fromkeys(EPOCHS, 2), 1, quick=True
            )
    else:
        work = options.work or pathlib.Path("build/early_exit")
        summary = measured(work, dataset, DEPTH, STATIC_DEPTHS, EPOCHS, options.threads)
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "early_exit.json").write_text(json.dumps(summary, indent=1) + "\n")
        pictures.curve(summary, RESULTS / "early_exit.png")
    print_tables(summary)
    print(json.dumps(summary))


def measured(
    work: pathlib.Path,
    dataset: datasets.Dataset,
    depth: int,
    static_depths: tuple[int, ...],
    epochs: dict[str, int],
    threads: int,
    quick: bool = False,
) -> dict[str, Any]:
    """Everything, from the networks to the latencies."""
    cells = Cells(work / "cells")
    network: MultiExit = networks.trained(work, "multi_exit", depth, dataset, epochs["multi_exit"])
    statics = {
        f"thin_resnet_{d}": networks.trained(work, "static", d, dataset, epochs["static"]) for d in static_depths
    }
    held_out, test = exit_data(network, dataset, work)
    total = network.exit_costs()[-1]
    summary: dict[str, Any] = {
        "claim": "early_exit",
        "machine": machine(),
        "network": {"depth": depth, "epochs": epochs, "macs": float(total), "branch_share": branch_share(network)},
        "exits": [{"cost": float(c), "accuracy": float(test.correct[:, k].mean())} for k, c in enumerate(test.costs)],
        "static": {
            name: {
                "cost": cost.profile(model).macs / total,
                "accuracy": cells.get(
                    f"static/{name}", lambda model=model: training.accuracy(model, dataset.x_test, dataset.y_test)
                ),
            }
            for name, model in statics.items()
        },
        "policies": curves.curves(held_out, test, cells, quick),
        "conditioned": curves.conditioned(held_out, test, cells, quick),
        "against_threshold": curves.paired(held_out, test, cells, quick),
    }
    summary["normalised"] = curves.normalised(summary["policies"])
    summary["operating_point"] = operating_point(network, held_out, test, cells)
    trunk = networks.trunk(network)
    peers = {"static": trunk, **statics}
    files = work / "files"
    summary["files"] = cells.get("device/files", lambda: device.files(network, peers, dataset, files))
    summary["agreement"] = cells.get("device/agreement", lambda: device.agreement(network, dataset, files))
    count = 64 if quick else 1000
    summary["latency"] = device.latencies(peers, dataset, files, count, threads)
    summary["claims"] = claims(summary)
    return summary


def operating_point(
    network: MultiExit, held_out: policies.ExitData, test: policies.ExitData, cells: Cells
) -> dict[str, Any]:
    """Gives the network the policy that is best on held-out data within the budget; its test figures.

    Solved or tuned: whichever earns more on the second half of the held-out data. The policy has the exits that it
    uses, `select_exits`; an exported file passes the others by.
    """
    tuning, choosing = held_out.split(0.5, seed=0)
    price, at_half = (
        cells.get(f"operating/price_{budget}", lambda budget=budget: policies.trade_off_for_budget(held_out, budget))
        for budget in (BUDGET, HALF)
    )
    candidates = {
        "threshold": lambda data: policies.ThresholdPolicy.tune(data, budget=BUDGET),
        "backward_induction": lambda data: policies.BackwardInduction.fit(data, price),
    }
    tuned, solved = (make(tuning) for make in candidates.values())
    gained, _, _ = policies.paired_bootstrap(solved, tuned, choosing, price)
    chosen = "backward_induction" if gained > 0 else "threshold"
    network.policy = policies.select_exits(candidates[chosen], held_out, min_share=LEAST_SHARE)
    found = policies.evaluate(network.policy, test)
    half = policies.evaluate(policies.BackwardInduction.fit(held_out, at_half), test)
    last = float(test.correct[:, -1].mean())
    return {
        "policy": chosen,
        "trade_off": price,
        "budget": BUDGET,
        "accuracy": found.accuracy,
        "cost": found.cost,
        "lost_points": 100 * (last - found.accuracy),
        "half_compute": {"cost": half.cost, "accuracy": half.accuracy, "lost_points": 100 * (last - half.accuracy)},
        "exit_shares": list(found.exit_shares),
        "exits_kept": [k for k in range(network.num_exits) if network.policy.may_leave(k)],
    }


def branch_share(network: MultiExit) -> float:
    """Multiply-adds of all label units and summaries over those of the whole network."""
    total = float(network.exit_costs()[-1])
    return 1 - cost.profile(networks.trunk(network)).macs / total


def claims(summary: dict[str, Any]) -> dict[str, Any]:
    """The figures that the claim stands or falls with."""
    shares = [v for row in summary["normalised"].values() for values in row.values() if values for v in values]
    wins = [
        (name, trade_off)
        for name, row in summary["against_threshold"].items()
        for trade_off, interval in row.items()
        if interval["low"] > 0
    ]
    gaps = [
        row["reward"] - summary["conditioned"][name][trade_off]["reward"]
        for name in summary["conditioned"]
        for trade_off, row in summary["policies"][name].items()
    ]
    found: dict[str, Any] = {
        "least_normalised_reward": min(shares, default=None),
        "beats_threshold_at": wins,
        "conditioned_behind_at_most": max(gaps),
        "exits_taken_by_5_percent": sum(share >= 0.05 for share in summary["agreement"]["float32"]["exit_shares"]),
        "slowest_agent_seconds": max(
            row["seconds"] for name in curves.AGENTS for row in summary["policies"][name].values()
        ),
    }
    for form, suffix in (("float32", ""), ("int8", "_int8")):
        latency, agreed = summary["latency"][form], summary["agreement"][form]
        found[f"realised{suffix}"] = latency["realised"]
        reduction = summary["network"]["macs"] / agreed["executed_macs"]
        found[f"speed_up_over_mac_reduction{suffix}"] = (
            latency["static"]["mean_us"] / latency["dynamic"]["mean_us"] / reduction
        )
    found["int8_lost_points"] = 100 * (
        summary["agreement"]["float32"]["accuracy"] - summary["agreement"]["int8"]["accuracy"]
    )
    return found


def print_tables(summary: dict[str, Any]) -> None:
    """Reward by policy and trade-off; latency by network."""
    console = Console(width=140)
    trade_offs = list(next(iter(summary["policies"].values())))
    table = Table("policy", *trade_offs, title="reward on test data, by trade-off")
    for name, row in summary["policies"].items():
        table.add_row(name, *(f"{row[t]['reward']:.4f}" for t in trade_offs))
    for name, row in summary["conditioned"].items():
        table.add_row(f"{name}, one for all", *(f"{row[t]['reward']:.4f}" for t in trade_offs))
    console.print(table)
    table = Table("network", "mean us", "p95 us", "int8 mean us", "int8 p95 us", title="latency, batch 1")
    latency = summary["latency"]
    for name in [name for name, row in latency["float32"].items() if isinstance(row, dict) and "mean_us" in row]:
        cells = [f"{latency[form][name][key]:.1f}" for form in ("float32", "int8") for key in ("mean_us", "p95_us")]
        table.add_row(name, *cells)
    console.print(table)
    for name, value in summary["claims"].items():
        console.print(f"{name}: {value}")


if __name__ == "__main__":
    main()
