"""What each policy earns on the same trained network, at seven trade-offs."""

import functools
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.cells import Cells
from keras_efficient import policies
from keras_efficient.policies import ExitData

TRADE_OFFS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8)
RANGE = (0.02, 1.0)
AGENTS = ("ppo", "dqn", "reinforce")
SEEDS = (0, 1, 2)
WORTH = 0.005  # a gap between the best fixed exit and the exact solution that is worth learning
Rows = dict[str, dict[str, Any]]


def curves(held_out: ExitData, test: ExitData, cells: Cells, quick: bool) -> Rows:
    """`rows[policy][trade_off]` with accuracy, cost and reward on the test data; lists over seeds where it learns."""
    rows: Rows = {}
    trade_offs = TRADE_OFFS[3:4] if quick else TRADE_OFFS
    for name, makers in _makers(quick).items():
        rows[name] = {}
        for trade_off in trade_offs:
            runs = []
            for seed, make in makers.items():
                cell = f"policies/{name}/{trade_off}/{seed}"
                runs.append(cells.get(cell, functools.partial(_run, make, held_out, test, trade_off)))
            rows[name][str(trade_off)] = _merged(runs)
    rows |= _fixed(held_out, test, trade_offs)
    return rows


def conditioned(held_out: ExitData, test: ExitData, cells: Cells, quick: bool) -> Rows:
    """As `curves`, of policies that take the trade-off with each request: one training for all of them."""
    rows: Rows = {}
    trade_offs = TRADE_OFFS[3:4] if quick else TRADE_OFFS
    makers: dict[str, Callable[[int], Any]] = {
        "policy_gradient": lambda seed: policies.PolicyGradient(trade_off_range=RANGE, seed=seed, verbose=0),
        "ppo": lambda seed: _trainer("ppo", seed, quick, trade_off_range=RANGE),
    }
    for name, make in makers.items():

        def learn(seed: int, make: Callable[[int], Any] = make) -> dict[str, Any]:
            started = time.perf_counter()
            policy = make(seed).fit(held_out)
            seconds = time.perf_counter() - started
            return {str(t): {**_result(policy, test, t), "seconds": seconds} for t in trade_offs}

        runs = [cells.get(f"conditioned/{name}/{seed}", functools.partial(learn, seed)) for seed in _seeds(quick)]
        rows[name] = {str(t): _merged([run[str(t)] for run in runs]) for t in trade_offs}
    return rows


def paired(held_out: ExitData, test: ExitData, cells: Cells, quick: bool) -> dict[str, Any]:
    """Learned policies against the tuned threshold on the same test images, with a paired bootstrap interval."""
    found: dict[str, Any] = {}
    for name, make in {
        "backward_induction": lambda t: policies.BackwardInduction.fit(held_out, t),
        "policy_gradient": lambda t: policies.PolicyGradient(t, verbose=0).fit(held_out),
    }.items():
        found[name] = {}
        for trade_off in TRADE_OFFS[3:4] if quick else TRADE_OFFS:

            def compare(make: Callable[[float], Any] = make, trade_off: float = trade_off) -> list[float]:
                tuned = policies.ThresholdPolicy.tune(held_out, trade_off=trade_off)
                return list(policies.paired_bootstrap(make(trade_off), tuned, test, trade_off))

            mean, low, high = cells.get(f"paired/{name}/{trade_off}", compare)
            found[name][str(trade_off)] = {"mean": mean, "low": low, "high": high}
    return found


def normalised(rows: Rows) -> dict[str, dict[str, list[float] | None]]:
    """(R - best fixed exit) / (exact solution - best fixed exit) per agent, trade-off and seed.

    The exact solution is the better of fitted backward induction and the exact policy gradient, by their mean reward;
    None where it is less than `WORTH` above the best fixed exit.
    """
    shares: dict[str, dict[str, list[float] | None]] = {}
    for agent in AGENTS:
        shares[agent] = {}
        for trade_off, row in rows[agent].items():
            fixed = rows["best_fixed_exit"][trade_off]["reward"]
            exact = max(rows[name][trade_off]["reward"] for name in ("backward_induction", "policy_gradient"))
            gap = exact - fixed
            shares[agent][trade_off] = [(r - fixed) / gap for r in row["rewards"]] if gap > WORTH else None
    return shares


def _makers(quick: bool) -> dict[str, dict[int, Callable[[ExitData, float], Any]]]:
    made: dict[str, dict[int, Callable[[ExitData, float], Any]]] = {
        "threshold": {0: lambda data, t: policies.ThresholdPolicy.tune(data, trade_off=t)},
        "entropy": {0: lambda data, t: policies.ThresholdPolicy.tune(data, trade_off=t, measure="entropy")},
        "backward_induction": {0: lambda data, t: policies.BackwardInduction.fit(data, t)},
        "policy_gradient": {
            seed: lambda data, t, seed=seed: policies.PolicyGradient(t, seed=seed, verbose=0).fit(data)
            for seed in _seeds(quick)
        },
    }
    for agent in AGENTS:
        made[agent] = {
            seed: lambda data, t, agent=agent, seed=seed: _trainer(agent, seed, quick, trade_off=t).fit(data)
            for seed in _seeds(quick)
        }
    return made


def _trainer(agent: Any, seed: int, quick: bool, **goal: Any) -> policies.ExitPolicyTrainer:
    more = {"iterations": 20} if quick else {}
    return policies.ExitPolicyTrainer(agent, seed=seed, verbose=1, **goal, **more)


def _seeds(quick: bool) -> tuple[int, ...]:
    return SEEDS[:1] if quick else SEEDS


def _run(
    make: Callable[[ExitData, float], Any], held_out: ExitData, test: ExitData, trade_off: float
) -> dict[str, Any]:
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "earns less than the best fixed exit": the table says so
        policy = make(held_out, trade_off)
    seconds = time.perf_counter() - started
    return {**_result(policy, test, trade_off), "seconds": seconds}


def _result(policy: Any, test: ExitData, trade_off: float) -> dict[str, Any]:
    found = policies.evaluate(policy, test, trade_off)
    return {"accuracy": found.accuracy, "cost": found.cost, "reward": found.reward}


def _merged(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and the rewards of each."""
    means = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
    return {**means, "rewards": [run["reward"] for run in runs]}


def _fixed(held_out: ExitData, test: ExitData, trade_offs: tuple[float, ...]) -> Rows:
    """The best single exit (chosen on held-out data) and what somebody who knows the labels would earn."""
    rows: Rows = {"best_fixed_exit": {}, "oracle": {}}
    for trade_off in trade_offs:
        index, _ = policies.best_fixed_exit(held_out, trade_off)
        fixed = policies.evaluate_exits(np.full(len(test), index), test, trade_off)
        best = policies.oracle(test, trade_off)
        for name, result in (("best_fixed_exit", fixed), ("oracle", best)):
            row = {"accuracy": result.accuracy, "cost": result.cost, "reward": result.reward}
            rows[name][str(trade_off)] = _merged([row])
    return rows
