"""Does the file compute what Keras computes? Run inside every `export`, on real inputs where the caller gives some."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_efficient.tflite_export.runner import Runner
from keras_efficient.tflite_export.signatures import InputSpec

Array = NDArray[Any]
INPUTS = 32


@dataclasses.dataclass(frozen=True)
class Parity:
    """Largest absolute difference per output, over the inputs that left at the same exit in both."""

    differences: dict[str, float]
    inputs: int
    exit_mismatches: int


def sample_inputs(specs: Sequence[InputSpec], data: Any, count: int = INPUTS) -> dict[str, Array]:
    """The first `count` rows of `data` by input name, or seeded noise where `data` is None.

    Raises:
        ValueError: If the data do not fit the inputs.
    """
    batch = specs[0].shape[0] or 1
    count = max(count // batch, 1) * batch
    if data is None:
        rng = np.random.default_rng(0)
        noise = {
            spec.name: rng.uniform(size=[count, *(size or 1 for size in spec.shape[1:])])
            * (1 if "float" in spec.dtype else 2)
            for spec in specs
        }
        return {spec.name: noise[spec.name].astype(spec.dtype) for spec in specs}
    given = data if isinstance(data, dict) else {specs[0].name: data}
    if set(given) != {spec.name for spec in specs}:
        raise ValueError(
            "Invalid value for argument `representative_data`. Expected arrays for "
            f"{[spec.name for spec in specs]}. Received: {sorted(given)}"
        )
    arrays = {}
    for spec in specs:
        array = np.asarray(given[spec.name])
        if array.ndim != len(spec.shape) or array.shape[1:] != spec.shape[1:] or len(array) == 0:
            raise ValueError(
                f"Invalid value for argument `representative_data`. Expected shape [N, {list(spec.shape[1:])}] for "
                f"input `{spec.name}`. Received: {array.shape}"
            )
        if len(array) < batch:
            raise ValueError(
                f"Invalid value for argument `representative_data`. Expected at least {batch} rows, one batch. "
                f"Received: {len(array)}"
            )
        arrays[spec.name] = array[: min(count, len(array) // batch * batch)].astype(spec.dtype)
    return arrays


def compare(reference: Callable[..., dict[str, Any]], runner: Runner, inputs: dict[str, Array]) -> Parity:
    """Runs `reference` (arrays in and out, one batch of the file's size at a time) and the file on the same inputs."""
    count = len(next(iter(inputs.values())))
    result = runner(**inputs)
    batch = runner.batch_size or 1
    rows: list[dict[str, Any]] = []
    for index in range(0, count, batch):
        rows.append(reference(**{name: array[index : index + batch] for name, array in inputs.items()}))
    expected = {name: np.concatenate([row[name] for row in rows]) for name in result.outputs}
    same = np.ones(count, bool)
    if result.exit_index is not None:
        same = np.concatenate([row["exit_index"] for row in rows]) == result.exit_index
    differences = {}
    for name, values in result.outputs.items():
        gap = np.abs(values.astype("float64") - expected[name].astype("float64"))[same]
        differences[name] = float(gap.max()) if gap.size else 0.0
    return Parity(differences, count, int(count - same.sum()))
