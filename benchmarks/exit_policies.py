"""What exit policies earn on data they have not seen: learned by TF-Agents, solved, tuned, fixed.

`python -m benchmarks.exit_policies [--quick] [--data-dir DIR] [--work DIR]`. Two kinds of data: synthetic chains, and
the logits of a small convolutional network with four exits trained on scikit-learn's digits. Policies see 500 inputs
(synthetic) or 450 (digits); the rewards, `accuracy - trade_off * cost`, are of other inputs. An interrupted run goes
on where it was.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.cells import Cells
from keras_efficient.datasets import load
from keras_efficient.ops.macs import conv_macs, dense_macs
from keras_efficient.policies import (
    BackwardInduction,
    ExitData,
    ExitPolicyTrainer,
    LearnedPolicy,
    PolicyGradient,
    ThresholdPolicy,
    best_fixed_exit,
    evaluate,
    oracle,
)

_LINE = "{data:10} {trade_off:5.2f}  {policy:28} {reward:.4f} +- {spread:.4f} {seconds:7.2f} s"
AGENTS = ("ppo", "dqn", "reinforce")


def synthetic_chain(seed: int, inputs: int = 500, test: int = 10_000) -> tuple[ExitData, ExitData]:
    """Five exits, later ones surer; each input has a hidden difficulty, each exit a scale of its own."""
    random = np.random.default_rng(seed)
    num, exits, classes = inputs + test, 5, 10
    labels, difficulty = random.integers(0, classes, num), random.normal(size=num)
    logits = random.normal(scale=1.3, size=(num, exits, classes))
    for k in range(exits):
        logits[np.arange(num), k, labels] += 0.8 + k - 1.3 * difficulty
        logits[:, k] *= random.uniform(0.6, 1.5)
    data = ExitData(logits, labels, np.linspace(0.2, 1.0, exits))
    return data.take(np.arange(inputs)), data.take(np.arange(inputs, num))


def digits_network(seed: int) -> tuple[ExitData, ExitData]:
    """Logits of a network with an exit after each of four convolutions, on digits it was not trained on."""
    keras.utils.set_random_seed(seed)
    digits = load("digits")
    images = np.concatenate([digits.x_train, digits.x_validation, digits.x_test])
    labels = np.concatenate([digits.y_train, digits.y_validation, digits.y_test])
    order = np.random.default_rng(seed).permutation(len(labels))
    images, labels = images[order], labels[order]
    x = inputs = keras.Input((8, 8, 1))
    outputs, macs, channels = [], [], 1
    for k, (width, stride) in enumerate([(8, 1), (16, 2), (32, 1), (64, 2)]):
        x = keras.layers.Conv2D(width, 3, strides=stride, padding="same", activation="relu")(x)
        outputs.append(keras.layers.Dense(10, name=f"exit_{k}")(keras.layers.GlobalAveragePooling2D()(x)))
        macs.append(conv_macs(x.shape[1:3], (3, 3), channels, width) + dense_macs(width, 10))
        channels = width
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss=[loss] * len(outputs))
    model.fit(images[:900], [labels[:900]] * len(outputs), epochs=40, batch_size=32, verbose=0)
    predictions = model.predict(images[900:], verbose=0)
    data = ExitData.from_predictions(predictions, labels[900:], np.cumsum(macs))
    return data.take(np.arange(450)), data.take(np.arange(450, len(data)))


def rewards(
    held_out: ExitData, test: ExitData, trade_off: float, seed: int, iterations: int | None
) -> tuple[dict[str, float], dict[str, float]]:
    """Reward on `test` and seconds of training for each way to decide."""
    fixed, _ = best_fixed_exit(held_out, trade_off)
    earned: dict[str, Any] = {"best fixed exit": test.rewards(trade_off)[:, fixed].mean()}
    makers: dict[str, Callable[[], Any]] = {
        "threshold": lambda: ThresholdPolicy.tune(held_out, trade_off=trade_off),
        "backward induction": lambda: BackwardInduction.fit(held_out, trade_off, seed=seed),
        "backward induction, binned": lambda: BackwardInduction.fit(held_out, trade_off, basis="step"),
        "policy gradient": lambda: PolicyGradient(trade_off, seed=seed, verbose=0).fit(held_out),
    }
    for agent in AGENTS:
        makers[agent] = partial(learn, agent, held_out, trade_off, seed, iterations)
    seconds = {}
    for name, make in makers.items():
        start = time.perf_counter()
        policy = make()
        seconds[name] = time.perf_counter() - start
        earned[name] = evaluate(policy, test, trade_off).reward
    earned["oracle"] = oracle(test, trade_off).reward
    return earned, seconds


def learn(agent: Any, held_out: ExitData, trade_off: float, seed: int, iterations: int | None) -> LearnedPolicy:
    """The policy of one agent with its default settings, or fewer iterations."""
    trainer = ExitPolicyTrainer(agent, trade_off=trade_off, iterations=iterations, seed=seed, verbose=0)
    return trainer.fit(held_out)


def measure(cells: Cells, seeds: int, trade_offs: list[float], iterations: int | None) -> list[dict[str, Any]]:
    """One row per kind of data, trade-off and policy: mean and spread of the reward over seeds, seconds to make it."""
    rows = []
    for kind, make in {"synthetic": synthetic_chain, "digits": digits_network}.items():
        pairs = [make(seed) for seed in range(seeds)]
        for trade_off in trade_offs:
            runs = [
                cells.get(f"{kind}/{trade_off}/{seed}", partial(rewards, *pair, trade_off, seed, iterations))
                for seed, pair in enumerate(pairs)
            ]
            for name in runs[0][0]:
                earned = [run[0][name] for run in runs]
                seconds = [run[1].get(name, 0.0) for run in runs]
                row = {"data": kind, "trade_off": trade_off, "policy": name, "reward": float(np.mean(earned))}
                rows.append({**row, "spread": float(np.std(earned)), "seconds": float(np.mean(seconds))})
                print(_LINE.format(**rows[-1]))
    return rows


def main() -> None:
    """Prints the table and one line of JSON; without --quick writes results/exit_policies.json too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, one trade-off, few iterations")
    parser.add_argument("--data-dir", help="not used: the data are synthetic or embedded")
    parser.add_argument("--work", type=Path, default=Path("build/exit_policies"), help="where cells are kept")
    options = parser.parse_args()
    quick = options.quick
    if quick:
        with tempfile.TemporaryDirectory() as work:
            rows = measure(Cells(Path(work)), 1, [0.3], iterations=5)
    else:
        rows = measure(Cells(options.work), 3, [0.1, 0.3], iterations=None)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    versions = {"python": platform.python_version(), "keras": keras.__version__, "backend": keras.backend.backend()}
    report = {"claim": "exit_policies", "machine": machine, "versions": versions, "rows": rows}
    if not quick:
        path = Path(__file__).parent / "results" / "exit_policies.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
