"""Predictions of all exits on the held-out and the test images, kept on disk."""

import pathlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_efficient import datasets
from keras_efficient.models import MultiExit
from keras_efficient.policies import ExitData


def exit_data(network: MultiExit, dataset: datasets.Dataset, directory: pathlib.Path) -> tuple[ExitData, ExitData]:
    """Predictions of all exits on the held-out and the test images, cached."""
    return (
        _cached(network, dataset.x_validation, dataset.y_validation, directory / "held_out.npz", dataset.x_train),
        _cached(network, dataset.x_test, dataset.y_test, directory / "test.npz", dataset.x_train),
    )


def _cached(
    network: MultiExit, x: NDArray[Any], y: NDArray[Any], path: pathlib.Path, trained_on: NDArray[Any]
) -> ExitData:
    if not path.exists():
        part = path.with_suffix(".part.npz")
        np.savez(part, **network.exit_data(x, y, batch_size=250, trained_on=trained_on))  # type: ignore[arg-type]
        part.replace(path)
    with np.load(path) as arrays:
        return ExitData(**arrays)
