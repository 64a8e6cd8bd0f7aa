"""Trains the model of the app on scikit-learn's digits and writes what the app carries with it.

    python android/app/make_assets.py FOLDER [EPOCHS]

writes `FOLDER/model.tflite`, staged, with our ops as custom ops, and `FOLDER/samples/*.png`, pictures that the model
has not seen. It takes about a minute; the digits come with the package.
"""

import shutil
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import keras
import numpy as np

from keras_efficient import datasets, tflite_export
from keras_efficient.callbacks import ComputeBudget
from keras_efficient.layers import EarlyExit, GatedConv2D
from keras_efficient.models import MultiExit
from keras_efficient.policies import ExitData, PolicyGradient

SAMPLE_SIDE = 64  # pixels; a multiple of the digits' 8


def make_model(digits: datasets.Dataset, epochs: int) -> MultiExit:
    """A network with three exits, and a policy that takes the trade-off with each request."""
    network = keras.Sequential([keras.Input(digits.input_shape)])
    network.add(keras.layers.Conv2D(8, 3, padding="same", activation="relu"))
    network.add(GatedConv2D(16, 3, strides=2, padding="same", activation="relu", batch_normalization=True))
    network.add(EarlyExit(digits.num_classes, pool="average_max"))
    network.add(GatedConv2D(32, 3, padding="same", activation="relu", batch_normalization=True))
    network.add(EarlyExit(digits.num_classes, pool="average_max"))
    network.add(GatedConv2D(64, 3, padding="same", activation="relu", batch_normalization=True))
    network.add(GatedConv2D(64, 3, padding="same", activation="relu", batch_normalization=True))
    network.add(keras.layers.GlobalMaxPooling2D())
    network.add(keras.layers.Dense(digits.num_classes))
    model = MultiExit.from_model(network)
    model.compile(
        keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    budget = ComputeBudget(target=0.7)
    model.fit(digits.x_train, digits.y_train, batch_size=32, epochs=epochs, callbacks=[budget], verbose=0)
    held_out = ExitData(**model.exit_data(digits.x_validation, digits.y_validation))
    model.policy = PolicyGradient(verbose=0).fit(held_out)
    return model


def write_samples(folder: Path, digits: datasets.Dataset) -> None:
    """One picture of each class, each pixel of a digit a square."""
    folder.mkdir(parents=True, exist_ok=True)
    scale = SAMPLE_SIDE // digits.input_shape[0]
    for label in range(digits.num_classes):
        image = digits.x_test[np.flatnonzero(digits.y_test == label)[0], ..., 0]
        pixels = np.rint(255 * image).astype("uint8").repeat(scale, axis=0).repeat(scale, axis=1)
        (folder / f"{label}.png").write_bytes(grey_png(pixels))


def grey_png(pixels: np.ndarray) -> bytes:
    """A PNG file of pixels `[height, width]`, uint8."""
    height, width = pixels.shape
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def main(folder: str, epochs: int = 20) -> None:
    """Writes model and samples; the folder appears whole or not at all."""
    keras.utils.set_random_seed(1)
    digits = datasets.load("digits")
    model = make_model(digits, epochs)
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        assets = Path(temporary) / "assets"
        write_samples(assets / "samples", digits)
        report = tflite_export.export(
            model,
            assets / "model.tflite",
            ops="custom",
            staged=True,
            representative_data=digits.x_validation,
            labels=list(digits.class_names),
            normalization={"mean": 0.0, "std": 255.0},
        )
        print(report)
        shutil.rmtree(target, ignore_errors=True)
        assets.rename(target)
    result = tflite_export.load(target / "model.tflite")(digits.x_test)
    accuracy = np.mean(result.output.argmax(axis=1) == digits.y_test)
    print(f"{accuracy:.1%} of {len(digits.y_test)} test images; exits taken {np.bincount(result.exit_index)}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
