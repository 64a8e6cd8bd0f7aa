"""The main job, from the data set to the report."""

import dataclasses
import json
import pathlib
import time
import warnings
from typing import Any

import keras
import numpy as np
from rich.console import Console

from keras_efficient import callbacks, cost, tflite_export
from keras_efficient.datasets import Dataset
from keras_efficient.demo import folder, html
from keras_efficient.demo.data import load
from keras_efficient.demo.deciding import Choice, choose_policy
from keras_efficient.demo.drawing import draw
from keras_efficient.demo.files import write_files
from keras_efficient.demo.losses import losses
from keras_efficient.demo.machine import machine
from keras_efficient.demo.measure import Measured, measure
from keras_efficient.demo.networks import dynamic_network, narrowed_to, static_network
from keras_efficient.demo.parity import int8_note, parity
from keras_efficient.demo.settings import Recipe, Settings
from keras_efficient.demo.table import table
from keras_efficient.demo.timing import METHOD
from keras_efficient.demo.train import train
from keras_efficient.layers import MultiBitDense
from keras_efficient.models import MultiExit
from keras_efficient.policies import ExitData, evaluate
from keras_efficient.tflite_export.extras import require
from keras_efficient.tflite_export.flatbuffer import write_whole


@dataclasses.dataclass(frozen=True)
class Networks:
    """What training gave: the three networks, and the policies for the dynamic one."""

    static: keras.Model
    small: keras.Model
    dynamic: MultiExit
    choice: Choice


def run(settings: Settings, console: Console) -> dict[str, Any]:
    """Trains, decides, exports, measures and reports; prints one table.

    Writes `model.keras`, `model.tflite`, `report.json`, `report.html` and the files that the model is compared with,
    all or none.

    Returns:
        What `report.json` holds.

    Raises:
        ValueError: If Keras does not run on TensorFlow, or the data set's file is wrong.
        OSError: If `settings.out` cannot be written, or the data set is not there.
        ImportError: If an extra is missing; names the pip command.
    """
    _check(settings)
    started = time.monotonic()
    dataset, recipe = load(settings), settings.recipe
    with folder.whole(settings.out) as partial:
        networks = train_networks(dataset, recipe, settings, console)
        report = _finish(networks, dataset, recipe, settings, partial, console, started)
    console.print(f"wrote {settings.out}: {', '.join(sorted(report['files']))}", soft_wrap=True, markup=False)
    return report


def train_networks(dataset: Dataset, recipe: Recipe, settings: Settings, console: Console) -> Networks:
    """Trains a static and a dynamic network, decides when to leave, and trains a static one of equal expected MACs."""
    topology = recipe.topology(dataset)
    seed = settings.seed
    keras.utils.set_random_seed(seed)
    static = static_network(topology)
    train(static, dataset, recipe, seed, console)
    keras.utils.set_random_seed(seed)
    dynamic = dynamic_network(topology, MultiBitDense(dataset.num_classes, bits=2, name="multi_bit_head"))
    budget = [callbacks.ComputeBudget(recipe.budget), callbacks.EfficiencyLogger()]
    train(dynamic, dataset, recipe, seed, console, budget)
    choice = choose_policy(dynamic, dataset, recipe, seed, settings.agent_iterations, console)
    dynamic.policy = choice.policy
    expected = cost.profile(dynamic, dataset.x_validation, batch_size=256).expected_macs
    assert expected is not None
    keras.utils.set_random_seed(seed)
    small = static_network(narrowed_to(topology, expected), name="static_small")
    train(small, dataset, recipe, seed, console)
    return Networks(static, small, dynamic, choice)


def _finish(
    networks: Networks,
    dataset: Dataset,
    recipe: Recipe,
    settings: Settings,
    partial: pathlib.Path,
    console: Console,
    started: float,
) -> dict[str, Any]:
    """Exports, measures, prints the table and writes the report into `partial`."""
    notes = list(networks.choice.notes)
    with_delegate = True
    try:
        tflite_export.delegate_path()
    except FileNotFoundError as error:
        with_delegate = False
        notes.append(f"dynamic_delegate and dynamic_int8 ran stock. {error}")
    console.print("exporting")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exports = write_files(partial, networks.static, networks.small, networks.dynamic, dataset)
    macs = {
        name: float(cost.profile(model).macs)
        for name, model in (("static", networks.static), ("static_small", networks.small))
    }
    console.print(f"measuring on {len(dataset.x_test)} test images")
    measured = measure(partial, dataset, {**macs, "static_int8": macs["static"]}, settings.threads, with_delegate)
    report = _report(networks, dataset, recipe, settings, measured)
    report["parity"] = parity(networks.dynamic, partial / "model.tflite", dataset, with_delegate)
    report = {"losses": losses(measured.rows, [*notes, *int8_note(measured.exits)]), **report}
    report["exports"] = {name: dataclasses.asdict(made) for name, made in exports.items()}
    found = draw(networks.dynamic, dataset, measured, report)
    report["gates"], pictures = found.gates, found.pictures
    report["seconds"] = round(time.monotonic() - started, 1)
    report["files"] = [*(file.name for file in partial.iterdir()), "report.json", "report.html"]
    console.print(
        table(measured.rows, f"{settings.data}, seed {settings.seed}, deployed policy: {networks.choice.chosen}")
    )
    for sentence in report["losses"]:
        console.print(f"lost: {sentence}", soft_wrap=True, markup=False)
    if pictures is None:
        console.print(html.NO_PICTURES, soft_wrap=True, markup=False)
    write_whole(partial / "report.json", json.dumps(report, indent=2).encode())
    write_whole(partial / "report.html", html.page(report, pictures).encode())
    return report


def _report(
    networks: Networks, dataset: Dataset, recipe: Recipe, settings: Settings, measured: Measured
) -> dict[str, Any]:
    """All but parity, pictures and what is lost."""
    choice, dynamic = networks.choice, networks.dynamic
    test = ExitData(**dynamic.exit_data(dataset.x_test, dataset.y_test, batch_size=256))
    exit_macs = [float(macs) for macs in dynamic.exit_costs(dataset.x_test)]
    policies = {}
    for name, policy in choice.policies.items():
        result = evaluate(policy, test)
        policies[name] = {
            "accuracy": result.accuracy,
            "cost": result.cost,
            "expected_macs": result.cost * exit_macs[-1],
            "exits": list(result.exit_shares),
            "validation_reward": choice.rewards[name],
            "takes_every_exit": choice.every_exit[name],
        }
    taken = measured.exits["dynamic_delegate"]
    assert taken is not None
    counts = np.bincount(taken, minlength=dynamic.num_exits)
    return {
        "data": settings.data,
        "seed": settings.seed,
        "epochs": recipe.epochs,
        "threads": settings.threads,
        "latency": METHOD,
        "test_images": len(dataset.x_test),
        "machine": machine(),
        "rows": [dataclasses.asdict(row) for row in measured.rows],
        "exits": {f"exit_{number}": float(share) for number, share in enumerate(counts / len(taken), start=1)},
        "exit_macs": exit_macs,
        "exit_accuracy": [float(share) for share in test.correct.mean(axis=0)],
        "policies": policies,
        "deployed": choice.chosen,
        "policy_inputs": dict(zip(("made_on", "chosen_on"), choice.inputs, strict=True)),
        "trade_off": choice.trade_off,
        "exit_budget": recipe.exit_budget,
        "budget": recipe.budget,
    }


def _check(settings: Settings) -> None:
    """What can be known to fail before minutes are spent."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "The demo needs Keras on the TensorFlow backend: set the environment variable KERAS_BACKEND=tensorflow. "
            f"Received: {keras.backend.backend()}"
        )
    folder.check(settings.out)
    for module in ("tensorflow", "ai_edge_litert", "flatbuffers"):
        require(module, "tflite")
