"""The exported LC-Net beside the dense network: agreement, multiply-adds really executed, and time."""

import pathlib
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from benchmarks.lcnet.networks import GATED
from keras_efficient import cost, datasets, ops, tflite_export
from keras_efficient.demo import timing

Array = NDArray[Any]
FORMS: dict[str, dict[str, Any]] = {"float32": {}, "int8": {"quantize": "int8"}}
IMAGES = 1000
"""Test images that pass through the files one by one."""


def files(name: str, model: keras.Model, dataset: datasets.Dataset, directory: pathlib.Path) -> dict[str, Any]:
    """Exports a network in float32 and int8; bytes and parity by name of the file."""
    directory.mkdir(parents=True, exist_ok=True)
    said = {}
    for form, options in FORMS.items():
        path = directory / f"{name}_{form}.tflite"
        report = tflite_export.export(model, path, representative_data=dataset.x_validation[:500], **options)
        said[path.stem] = {"bytes": report.bytes, "parity": report.parity, "notes": list(report.notes)}
    return said


def executed(path: pathlib.Path, dataset: datasets.Dataset) -> dict[str, Any]:
    """Accuracy and multiply-adds per test image of a file with the kernels, all test images."""
    result = tflite_export.load(path, delegate="auto")(dataset.x_test)
    return {
        "accuracy": float((result.output.argmax(axis=1) == dataset.y_test).mean()),
        "macs": [float(value) for value in result.executed_macs],
    }


def agreement(model: keras.Model, path: pathlib.Path, dataset: datasets.Dataset, count: int) -> dict[str, float]:
    """Largest differences of logits between computing everything, skipping, the stock runtime and the kernels."""
    x = dataset.x_test[:count]
    masked = model.predict(x, batch_size=250, verbose=0)
    few = min(count, 16)
    with ops.skipping():
        skipped = np.concatenate([keras.ops.convert_to_numpy(model(x[n : n + 1], training=False)) for n in range(few)])
    stock = tflite_export.load(path, delegate="none")(x)
    kernels = tflite_export.load(path, delegate="auto")(x)
    profile = cost.profile(model, x)
    assert profile.expected_macs is not None
    return {
        "images": count,
        "masked_skipped": float(np.abs(masked[:few] - skipped).max()),
        "masked_stock": float(np.abs(masked - stock.output).max()),
        "masked_kernels": float(np.abs(masked - kernels.output).max()),
        "profile_macs": profile.expected_macs,
        "executed_macs": float(kernels.executed_macs.mean()),
    }


def latencies(names: list[str], dataset: datasets.Dataset, directory: pathlib.Path, threads: int) -> dict[str, Any]:
    """Mean and p95 of one pass over test images at batch 1, all files in turns; LC-Nets with the kernels."""
    images = [[image[None]] for image in dataset.x_test[:IMAGES]]
    found: dict[str, Any] = {}
    for form in FORMS:
        timers = {
            name: timing.Timer(
                directory / f"{name}_{form}.tflite", "auto" if name.partition("_")[0] in GATED else "none", threads
            )
            for name in names
        }
        found[form] = {name: timing.summary(times) for name, times in timing.in_turns(timers, images).items()}
    return found
