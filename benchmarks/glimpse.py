"""What one glimpse costs on the device, at any size of the image, beside a small network on all of it.

`python -m benchmarks.glimpse [--quick] [--threads N]`. The exported `step` of a recurrent attention model with three
12 x 12 patches at images of 100 to 2,000 pixels, float32 and int8, float and uint8 images, and its sensor alone; and a
small CNN on the whole image. Weights are random: they do not matter for the time. Only `invoke` is timed: the frame
lies in the input tensor, the location is another one anywhere each time, or (`again`) always the same.
"""

import argparse
import json
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from keras_efficient import tflite_export
from keras_efficient.demo.machine import machine
from keras_efficient.demo.timing import Timer, in_turns, summary
from keras_efficient.layers import GlimpseCell
from keras_efficient.models import RecurrentAttention

Array = NDArray[Any]
RESULTS = pathlib.Path(__file__).parent / "results"
SIZES = (100, 500, 1000, 2000)
KINDS = {
    "step": ("float32", None),
    "step_uint8": ("uint8", None),
    "step_int8": ("float32", "int8"),
    "step_uint8_int8": ("uint8", "int8"),
}
LOCATIONS = 64
FLAT = 1.2  # claimed: the largest time is below this times the smallest


def network(size: int, image_dtype: str) -> RecurrentAttention:
    """Glimpses of three scales, 256 units."""
    keras.utils.set_random_seed(0)
    model = RecurrentAttention(10, GlimpseCell(12, 3), num_glimpses=6, image_dtype=image_dtype)
    model.build((None, size, size, 1))
    return model


def sensor_alone(size: int) -> keras.Model:
    """The patches and nothing else."""
    image, location = keras.Input((size, size, 1), name="image"), keras.Input((2,), name="location")
    sensor = GlimpseCell(12, 3).sensor
    return keras.Model({"image": image, "location": location}, sensor(image, location))


def cnn(size: int) -> keras.Model:
    """A small network that reads every pixel."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((size, size, 1)),
            *[layers.Conv2D(width, 3, strides=2, padding="same", activation="relu") for width in (8, 16, 32)],
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )


class HeldImage(Timer):
    """A timer whose image stays in its tensor, as a camera's frame does."""

    def __init__(self, path: pathlib.Path, arrays: Sequence[Array], threads: int) -> None:
        super().__init__(path, threads=threads)
        self._small = [k for k, shape in enumerate(self.shapes) if len(shape) < 4]
        self.arrays = list(arrays)
        super().run(arrays)
        self.indices = [self.indices[k] for k in self._small]
        self._dtypes = [self._dtypes[k] for k in self._small]

    def run(self, arrays: Sequence[Array]) -> float:
        location = arrays[0]
        given = [location if self.arrays[k].shape == (1, 2) else self.arrays[k] for k in self._small]
        return super().run(given)


def exported(directory: pathlib.Path, sizes: Sequence[int], threads: int) -> dict[str, HeldImage]:
    """Timers by `kind/size`."""
    timers = {}
    for size in sizes:
        rng = np.random.default_rng(0)
        image = rng.uniform(size=(1, size, size, 1)).astype("float32")
        for kind in ("cnn", "sensor", *KINDS):
            path = directory / f"{kind}_{size}.tflite"
            if kind == "cnn":
                tflite_export.export(cnn(size), path, representative_data=image)
            elif kind == "sensor":
                location = np.zeros((1, 2), "float32")
                tflite_export.export(
                    sensor_alone(size), path, representative_data={"image": image, "location": location}
                )
            else:
                dtype, quantize = KINDS[kind]
                model = network(size, dtype)
                data = model.step_data(np.round(255 * image).astype("uint8") if dtype == "uint8" else image)
                tflite_export.export(
                    model.step_model(), path, signature="step", representative_data=data, quantize=quantize
                )
            shapes = Timer(path, threads=threads).shapes
            fills = {4: image, 2: None}
            arrays = [
                fills[len(shape)] if len(shape) == 4 else rng.uniform(0, 1, shape).astype("float32") for shape in shapes
            ]
            if kind in KINDS and KINDS[kind][0] == "uint8":
                arrays = [np.round(255 * a).astype("uint8") if a.ndim == 4 else a for a in arrays]
            timers[f"{kind}/{size}"] = HeldImage(path, arrays, threads)
    return timers


def measured(sizes: Sequence[int], runs: int, threads: int) -> dict[str, Any]:
    """Medians by kind and size, and how much they change."""
    with tempfile.TemporaryDirectory() as directory:
        timers = exported(pathlib.Path(directory), sizes, threads)
    rng = np.random.default_rng(1)
    locations = [[rng.uniform(-1, 1, (1, 2)).astype("float32")] for _ in range(LOCATIONS)]
    fast = {name: timer for name, timer in timers.items() if not name.startswith("cnn")}
    times = in_turns(fast, locations, runs)
    times |= {f"{name}/again": values for name, values in in_turns(fast, locations[:1], runs).items()}
    slow = {name: timer for name, timer in timers.items() if name.startswith("cnn")}
    times |= in_turns(slow, locations, max(runs // 20, 8), block=4)
    found: dict[str, Any] = {}
    for name, values in times.items():
        kind, size, *again = name.split("/")
        found.setdefault(" ".join([kind, *again]), {})[size] = summary(values)
    medians = {kind: [entry["p50_us"] for entry in by_size.values()] for kind, by_size in found.items()}
    return {
        "claim": "glimpse",
        "machine": machine(),
        "threads": threads,
        "runs": runs,
        "times": found,
        "macs": network(sizes[0], "float32").exit_costs()[0],
        "flatness": max(medians["step"]) / min(medians["step"]),  # of the plain step, in the hardest case
        "flatness_by_kind": {kind: max(values) / min(values) for kind, values in medians.items()},
        "flat": {kind: max(values) < FLAT * min(values) for kind, values in medians.items()},
        "cnn_over_step": {
            str(size): found["cnn"][str(size)]["p50_us"] / found["step"][str(size)]["p50_us"] for size in sizes
        },
    }


def main() -> None:
    """Prints a table and one line of JSON; without --quick writes results/glimpse.json too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two sizes, few runs; nothing is written")
    parser.add_argument("--data-dir", help="not read: images are noise")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    sizes = SIZES[:2] if options.quick else SIZES
    found = measured(sizes, 64 if options.quick else 1000, options.threads)
    table = Table("median us", *[f"{size} px" for size in sizes], "largest / smallest")
    for kind, by_size in found["times"].items():
        times = [f"{entry['p50_us']:.1f}" for entry in by_size.values()]
        table.add_row(kind, *times, f"{found['flatness_by_kind'][kind]:.2f}")
    Console().print(table)
    if not options.quick:
        (RESULTS / "glimpse.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
