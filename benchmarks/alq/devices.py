"""One network as files: floats, static int8, few-bit weights with float32, int8 and 2-bit activations."""

import pathlib
from typing import Any

import keras
import numpy as np

from benchmarks.alq import networks
from keras_efficient import datasets, quantization, tflite_export
from keras_efficient.demo import timing

ACTIVATION_BITS = 2


def with_activations(
    network: quantization.MultiBitModel, dataset: datasets.Dataset, epochs: int, rate: float = 3e-4
) -> quantization.MultiBitModel:
    """The network with 2-bit activations, trained on straight through."""
    keras.utils.set_random_seed(0)
    model = quantization.quantize_activations(network, ACTIVATION_BITS)
    model.compile(keras.optimizers.Adam(rate), networks.loss(), metrics=["accuracy"])
    model.phase = "latent"
    model.fit(networks.batches(dataset, 0), epochs=epochs, verbose=2)
    return model


def end_to_end(
    floats: keras.Model,
    network: keras.Model,
    activations: keras.Model,
    dataset: datasets.Dataset,
    work: pathlib.Path,
    runs: int,
) -> dict[str, Any]:
    """Bytes, accuracy on the first `runs` test images, and latency at batch 1 with one thread, all files in turns."""
    work.mkdir(parents=True, exist_ok=True)
    data, x, y = dataset.x_validation[:500], dataset.x_test[:runs], dataset.y_test[:runs]
    models: dict[str, tuple[keras.Model, dict[str, Any], str]] = {
        "float32": (floats, {}, "none"),
        "int8": (floats, {"quantize": "int8"}, "none"),
        "alq": (network, {"ops": "custom"}, "auto"),
        "alq, int8": (network, {"ops": "custom", "quantize": "int8"}, "auto"),
        f"alq, {ACTIVATION_BITS}-bit activations": (activations, {"ops": "custom"}, "auto"),
    }
    found: dict[str, Any] = {}
    timers = {}
    for number, (name, (model, options, delegate)) in enumerate(models.items()):
        path = work / f"end_to_end_{number}.tflite"
        report = tflite_export.export(model, path, representative_data=data, **options)
        labels = tflite_export.load(path, delegate=delegate)(x).output.argmax(axis=1)
        found[name] = {"bytes": report.bytes, "accuracy": float((labels == y).mean()), "images": len(x)}
        timers[name] = timing.Timer(path, delegate)
    times = timing.in_turns(timers, [[image[None]] for image in x[: min(len(x), 500)]])
    for name, values in times.items():
        found[name] |= timing.summary(np.asarray(values))
    return found
