"""From measurements to the three pictures of the report."""

import dataclasses
from typing import Any

import numpy as np

from keras_efficient.datasets import Dataset
from keras_efficient.demo import pictures
from keras_efficient.demo.gates import open_shares
from keras_efficient.demo.measure import Measured
from keras_efficient.models import MultiExit
from keras_efficient.policies import ExitData, threshold_curve

TITLES = ("Accuracy against compute", "Exits taken", "Open gates")


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Open gates per layer, and the pictures by title (None without matplotlib)."""

    gates: dict[str, dict[str, float]]
    pictures: dict[str, bytes] | None


def draw(model: MultiExit, dataset: Dataset, measured: Measured, report: dict[str, Any]) -> Drawn:
    """The pictures, on the test images and the exits that the delegate's run took."""
    taken = measured.exits["dynamic_delegate"]
    assert taken is not None
    gates = open_shares(model, dataset.x_test, taken)
    if not pictures.available():
        return Drawn(gates, None)
    whole = report["exit_macs"][-1]
    data = ExitData(**model.exit_data(dataset.x_test, dataset.y_test, batch_size=256))
    curve = threshold_curve(data)
    policies = {name: (result["expected_macs"], result["accuracy"]) for name, result in report["policies"].items()}
    static = {
        name: (measured.row(name).expected_macs, measured.row(name).accuracy) for name in ("static", "static_small")
    }
    exits = list(zip(report["exit_macs"], report["exit_accuracy"], strict=True))
    right = np.asarray(measured.predictions["dynamic_delegate"] == dataset.y_test)
    drawn = (
        pictures.accuracy_against_compute(
            (curve.cost * whole, curve.accuracy), policies, report["deployed"], exits, static
        ),
        pictures.exits_taken(dataset.x_test, taken, model.num_exits, right),
        pictures.open_gates(gates),
    )
    return Drawn(gates, dict(zip(TITLES, drawn, strict=True)))
