"""What int8 stages for an Edge TPU lose against float, exit by exit, on all test images of CIFAR-10.

`python -m benchmarks.coral_stages [--quick] [--data-dir DIR] [--work DIR] [--images N]`. Takes the trained multi-exit
network of `benchmarks.early_exit` (and trains it if need be), exports it with `target="coral"`, and runs the stages on
the CPU; then once more after fine-tuning with the rounding of the files.
"""

import argparse
import json
import pathlib
import tempfile
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.early_exit import networks
from benchmarks.parts import few
from keras_efficient import datasets, tflite_export
from keras_efficient.demo.machine import machine
from keras_efficient.models import MultiExit
from keras_efficient.policies import ThresholdPolicy

RESULTS = pathlib.Path(__file__).parent / "results" / "coral_stages.json"
NEVER = 2.0  # a confidence that no exit has: inputs leave at the cap
CLIP_NORM = 5.0
RATE = 1e-4  # of fine-tuning; batch normalisation is frozen then, so steps must be small
CALIBRATION = 512


def main() -> None:
    """Prints a table and one line of JSON; without --quick writes results/coral_stages.json too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small network, few images; nothing is written")
    parser.add_argument("--data-dir", help="directory of cifar10.npz")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/early_exit"))
    parser.add_argument("--images", type=int, default=10_000, help="of the training part, for fine-tuning")
    options = parser.parse_args()
    dataset = datasets.load("cifar10", options.data_dir)
    with tempfile.TemporaryDirectory() as scratch:
        directory = pathlib.Path(scratch)
        if options.quick:
            dataset = few(dataset, 1280, 300, 300)
            work, depth, epochs, images = directory, 8, 1, 1280
        else:
            options.work.mkdir(parents=True, exist_ok=True)
            work, depth, epochs, images = options.work, 20, 18, options.images
        network = networks.trained(work, "multi_exit", depth, dataset, epochs)
        summary = measured(network, dataset, directory, images)
    print_table(summary)
    if not options.quick:
        RESULTS.write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary))


def measured(network: MultiExit, dataset: datasets.Dataset, directory: pathlib.Path, images: int) -> dict[str, Any]:
    """Accuracies of every exit in float and in int8, before and after fine-tuning."""
    network.policy = ThresholdPolicy(NEVER)
    representative = dataset.x_train[:CALIBRATION]
    before = float_accuracies(network, dataset)
    plain = stage_accuracies(network, dataset, representative, directory / "plain")
    with tflite_export.quantization_aware(network, representative):
        network.compile(
            keras.optimizers.SGD(RATE, momentum=0.9, global_clipnorm=CLIP_NORM),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            gradient_equilibrium=True,
        )
        batches = datasets.Augmented(dataset.x_train[:images], dataset.y_train[:images], 128)
        network.fit(batches, epochs=1, verbose=2)
    tuned = stage_accuracies(network, dataset, representative, directory / "tuned")
    return {
        "claim": "coral_stages",
        "machine": machine(),
        "test_images": len(dataset.y_test),
        "float": before,
        "int8": plain,
        "int8_fine_tuned": tuned,
        "most_lost_points": 100 * max(f - q for f, q in zip(before, plain["accuracy"], strict=True)),
        "most_lost_points_fine_tuned": 100 * max(f - q for f, q in zip(before, tuned["accuracy"], strict=True)),
    }


def float_accuracies(network: MultiExit, dataset: datasets.Dataset) -> list[float]:
    """Share of test images that each exit classifies right, in Keras."""
    logits = network.predict_all(dataset.x_test, batch_size=250, verbose=0)
    return [_right(values, dataset) for values in logits.values()]


def stage_accuracies(
    network: MultiExit, dataset: datasets.Dataset, representative: NDArray[Any], folder: pathlib.Path
) -> dict[str, Any]:
    """The same of the exported stages, and whether the Edge TPU would take them whole."""
    report = tflite_export.export(network, folder, target="coral", representative_data=representative)
    runner = tflite_export.load_coral(folder)
    found = [_right(runner(dataset.x_test, max_exit=k).outputs["output"], dataset) for k in range(network.num_exits)]
    return {"accuracy": found, "bytes": report.bytes, "maps_fully": all(c.maps_fully for c in report.checks.values())}


def print_table(summary: dict[str, Any]) -> None:
    """One row per exit."""
    table = Table("exit", "float", "int8", "fine-tuned int8", title="share of test images classified right")
    columns = (summary["float"], summary["int8"]["accuracy"], summary["int8_fine_tuned"]["accuracy"])
    for k, row in enumerate(zip(*columns, strict=True)):
        table.add_row(str(k + 1), *(f"{value:.2%}" for value in row))
    console = Console(width=100)
    console.print(table)
    console.print(f"most lost: {summary['most_lost_points']:.2f} points")
    console.print(f"most lost after fine-tuning: {summary['most_lost_points_fine_tuned']:.2f} points")


def _right(logits: NDArray[Any], dataset: datasets.Dataset) -> float:
    return float(np.mean(logits.argmax(axis=1) == dataset.y_test))


if __name__ == "__main__":
    main()
