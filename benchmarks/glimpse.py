"""What one glimpse costs on the device, at any size of the image, beside a small network on all of it.

`python -m benchmarks.glimpse [--quick] [--threads N]`. The exported `step` of a recurrent attention model with three
12 x 12 patches at images of 100 to 2,000 pixels, float32 and int8, float and uint8 images, as rows and as pixels, and
its sensor alone; and a small CNN on the whole image. Weights are random: they do not matter for the time. Only `invoke`
is timed: the frame lies in the input tensor, the location is another one anywhere each time, or (`again`) always the
same.
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
    "step": ("float32", "rows", None),
    "step_uint8": ("uint8", "rows", None),
    "step_int8": ("float32", "rows", "int8"),
    "step_uint8_int8": ("uint8", "rows", "int8"),
    "step_pixels": ("float32", "pixels", None),
    "step_pixels_int8": ("float32", "pixels", "int8"),
}
LOCATIONS = 64
FLAT = 1.2  # claimed: the largest time is below this times the smallest


def network(size: int, image_dtype: str, image_layout: str) -> RecurrentAttention:
    """Glimpses of three scales, 256 units."""
    keras.utils.set_random_seed(0)
    cell = GlimpseCell(12, 3)
    model = RecurrentAttention(10, cell, num_glimpses=6, image_dtype=image_dtype, image_layout=image_layout)
    model.build((None, size, size, 1))
    return model


def sensor_alone(size: int) -> keras.Model:
    """The patches and nothing else, cut out of rows."""
    image, location = keras.Input((size, size), name="image"), keras.Input((2,), name="location")
    sensor = GlimpseCell(12, 3).sensor
    sensor.build((None, size, size, 1), (None, 2))
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
    """A timer whose image stays in its tensor, as a camera's frame does; only the location changes."""

    def __init__(self, path: pathlib.Path, image: Array, threads: int) -> None:
        super().__init__(path, threads=threads)
        rng = np.random.default_rng(0)
        self.arrays = [
            image.reshape(shape) if np.prod(shape) == image.size else rng.uniform(size=shape).astype("float32")
            for shape in self.shapes
        ]
        super().run(self.arrays)
        self._small = [k for k, array in enumerate(self.arrays) if array.size < image.size]
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
        image = np.random.default_rng(0).uniform(size=(1, size, size, 1)).astype("float32")
        bytes_ = np.round(255 * image).astype("uint8")
        for kind in ("cnn", "sensor", *KINDS):
            path = directory / f"{kind}_{size}.tflite"
            held = image
            if kind == "cnn":
                tflite_export.export(cnn(size), path, representative_data=image)
            elif kind == "sensor":
                data = {"image": image[..., 0], "location": np.zeros((1, 2), "float32")}
                tflite_export.export(sensor_alone(size), path, representative_data=data)
            else:
                dtype, layout, quantize = KINDS[kind]
                model = network(size, dtype, layout)
                held = bytes_ if dtype == "uint8" else image
                data = model.step_data(held)
                tflite_export.export(
                    model.step_model(), path, signature="step", representative_data=data, quantize=quantize
                )
            timers[f"{kind}/{size}"] = HeldImage(path, held, threads)
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
        "macs": network(sizes[0], "float32", "rows").exit_costs()[0],
        "flatness": max(medians["step"]) / min(medians["step"]),  # float32, anywhere in an image of floats
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
