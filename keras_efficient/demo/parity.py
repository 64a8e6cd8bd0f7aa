"""Do Keras, the stock runtime and the delegate agree, on inputs that take every exit and meet open and shut gates?"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_efficient import tflite_export
from keras_efficient.datasets import Dataset
from keras_efficient.demo.gates import open_shares
from keras_efficient.models import MultiExit

Array = NDArray[Any]
LEAST = 256
PER_EXIT = 8
BLENDS = 4000


def parity_inputs(model: MultiExit, dataset: Dataset) -> tuple[Array, dict[str, Any]]:
    """At least 256 inputs that take every exit, and what they cover.

    Test images first, then validation and training images, and blends of two training images, that take an exit which
    too few have taken so far.

    Returns:
        images: `[N, height, width, channels]`.
        coverage: `inputs`, `exits` (inputs per exit), `open_gates` and `shut_gates` (met by those inputs), `complete`.
    """
    parts = [dataset.x_test, dataset.x_validation, dataset.x_train, blends(dataset.x_train)]
    images = parts[0]
    _, taken = model.predict_exits(images, batch_size=256, verbose=0)
    for part in parts[1:]:
        counts = np.bincount(taken, minlength=model.num_exits)
        if counts.min() >= PER_EXIT and len(images) >= LEAST:
            break
        _, there = model.predict_exits(part, batch_size=256, verbose=0)
        lacking = max(0, LEAST - len(images))
        wanted = [np.flatnonzero(there == k)[: PER_EXIT - count] for k, count in enumerate(counts) if count < PER_EXIT]
        rows = np.unique(np.concatenate([np.arange(min(lacking, len(part))), *wanted]).astype(int))
        images = np.concatenate([images, part[rows]])
        taken = np.concatenate([taken, there[rows]])
    counts = np.bincount(taken, minlength=model.num_exits)
    gates = open_shares(model, images, taken).values()
    opened, shut = sum(int(gate["opened"]) for gate in gates), sum(int(gate["shut"]) for gate in gates)
    complete = bool(counts.min() > 0 and opened and shut and len(images) >= LEAST)
    coverage = {
        "inputs": len(images),
        "exits": counts.tolist(),
        "open_gates": opened,
        "shut_gates": shut,
        "complete": complete,
    }
    return images, coverage


def blends(images: Array) -> Array:
    """Noisy mixtures of two images each: harder than any real one, for exits that hardly a real one takes."""
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(images), (2, BLENDS))
    share = rng.uniform(0.3, 0.7, (BLENDS, 1, 1, 1))
    mixed = share * images[first] + (1 - share) * images[second]
    return np.asarray(np.clip(mixed + rng.normal(0.0, 0.1, mixed.shape), 0, 1), "float32")


def parity(model: MultiExit, file: pathlib.Path, dataset: Dataset, with_delegate: bool) -> dict[str, Any]:
    """Largest absolute differences of the logits between Keras and stock, and between stock and the delegate.

    An input whose score lies on the border may leave elsewhere in one of them; its logits are then those of another
    exit, so it is counted in `other_exit` and not compared. Without the delegate `stock_vs_delegate` is None.
    """
    images, coverage = parity_inputs(model, dataset)
    logits, taken = model.predict_exits(images, batch_size=256, verbose=0)
    stock = tflite_export.load(file, delegate="none")(images)
    runs: dict[str, tuple[Array, Any]] = {"keras": (logits, taken), "stock": (stock.output, stock.exit_index)}
    if with_delegate:
        ours = tflite_export.load(file)(images)
        runs["delegate"] = (ours.output, ours.exit_index)
    report: dict[str, Any] = {"keras_vs_stock": None, "stock_vs_delegate": None, "other_exit": {}, "coverage": coverage}
    for one, other in (("keras", "stock"), ("stock", "delegate")):
        if other in runs:
            same = runs[one][1] == runs[other][1]
            gap = np.abs(runs[one][0].astype("float64") - runs[other][0].astype("float64"))[same]
            report[f"{one}_vs_{other}"] = float(gap.max())
            report["other_exit"][f"{one}_vs_{other}"] = int((~same).sum())
    return report


def int8_note(exits: Mapping[str, Array | None]) -> list[str]:
    """A sentence where the int8 file leaves at other exits than the float32 one."""
    float32, int8 = exits["dynamic_delegate"], exits["dynamic_int8"]
    assert float32 is not None
    assert int8 is not None
    others = int((float32 != int8).sum())
    if not others:
        return []
    return [f"dynamic_int8 leaves {others} of {len(int8)} test images at another exit than the float32 file does."]
