"""What a multi-bit network is as a `.tflite` file: bytes, agreement with Keras, accuracy in the runtime."""

import pathlib
from typing import Any

import keras
import numpy as np

from keras_efficient import datasets, tflite_export


def exported(model: keras.Model, dataset: datasets.Dataset, work: pathlib.Path, images: int) -> dict[str, Any]:
    """Bytes of both forms, and the labels of the first `images` test images beside those of Keras."""
    x, y = dataset.x_test[:images], dataset.y_test[:images]
    labels = np.asarray(model.predict(x, batch_size=500, verbose=0)).argmax(axis=1)
    found: dict[str, Any] = {"images": len(x)}
    for form in ("custom", "composite"):
        file = work / f"{form}.tflite"
        report = tflite_export.export(model, file, ops=form, representative_data=x[:8])
        taken = tflite_export.load(file)(x).output.argmax(axis=1)
        found[form] = {
            "bytes": report.bytes,
            "accuracy": float((taken == y).mean()),
            "equal_labels": float((taken == labels).mean()),
        }
    taken = tflite_export.load(work / "composite.tflite", delegate="none")(x).output.argmax(axis=1)
    found["stock"] = {"accuracy": float((taken == y).mean()), "equal_labels": float((taken == labels).mean())}
    return found
