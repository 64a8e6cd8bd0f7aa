"""The `.tflite` files of a run: ours, and what a user gets from the converter alone."""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import keras
from numpy.typing import NDArray

from keras_efficient import tflite_export
from keras_efficient.datasets import Dataset
from keras_efficient.tflite_export.extras import require
from keras_efficient.tflite_export.flatbuffer import write_whole

CALIBRATION = 512  # training images that ranges are found on
VERIFIED = 32  # held-out images that every export is verified on
FILES = {
    "static": "static.tflite",
    "static_small": "static_small.tflite",
    "static_int8": "static_int8.tflite",
    "dynamic": "model.tflite",
    "dynamic_int8": "model_int8.tflite",
}


def write_files(
    folder: pathlib.Path, static: keras.Model, small: keras.Model, dynamic: keras.Model, dataset: Dataset
) -> dict[str, tflite_export.ExportReport]:
    """Exports everything into `folder`, and saves the dynamic network as `model.keras`.

    Returns:
        The reports of the exports, by the names in `FILES`; `static_int8`, which the converter alone writes, has none.
    """
    calibration = dataset.x_train[:CALIBRATION]
    mean, std = dataset.normalization
    reports = {}
    for name, model, quantize in (
        ("static", static, None),
        ("static_small", small, None),
        ("dynamic", dynamic, None),
        ("dynamic_int8", dynamic, "int8"),
    ):
        reports[name] = tflite_export.export(
            model,
            folder / FILES[name],
            representative_data=calibration if quantize else dataset.x_validation[:VERIFIED],
            quantize=quantize,
            labels=list(dataset.class_names),
            normalization={"mean": float(mean), "std": float(std)},
        )
    write_whole(folder / FILES["static_int8"], post_training_int8(static, calibration))
    dynamic.save(folder / "model.keras")
    return reports


def post_training_int8(model: keras.Model, images: NDArray[Any]) -> bytes:
    """The converter's own full int8 quantisation of a static network: what a user gets by setting its flag.

    Weights and activations are int8, ranges come from `images`, input and output stay float32.
    """
    tf = require("tensorflow", "tflite")

    def samples() -> Iterator[list[NDArray[Any]]]:
        for index in range(len(images)):
            yield [images[index : index + 1]]

    with quiet():
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        return bytes(converter.convert())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what the converter's C++ code prints off the terminal; exceptions pass."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    with open(os.devnull, "w") as null:
        for number in (1, 2):
            os.dup2(null.fileno(), number)
    try:
        yield
    finally:
        for number, copy in enumerate(saved, start=1):
            os.dup2(copy, number)
            os.close(copy)
