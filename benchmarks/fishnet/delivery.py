"""What filter sharing delivers: bytes of the file of all tasks, agreement with Keras, latency of each task."""

import pathlib
import tempfile
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_efficient import tflite_export
from keras_efficient.datasets import MultiTaskDataset
from keras_efficient.demo import timing
from keras_efficient.layers.copying import copy_all_weights
from keras_efficient.models import MultiTask
from keras_efficient.tflite_export import flatbuffer

Array = NDArray[Any]
PLAIN = "plain network"


def delivery(model: MultiTask, data: MultiTaskDataset, plain: keras.Model, runs: int = 2000) -> dict[str, Any]:
    """Exports a trained network and measures what comes out.

    What the file holds beside filters are `constants` (per task the index and scale of every filter, biases, heads) and
    `structure`, the graphs themselves. `latency` compares the task in the file with its network exported alone and with
    `plain`, in turns, at batch 1, one thread. `error_of_file` and `error_of_keras` are how far each is from the same
    network in 64 bits.

    Args:
        model: Filter sharing, trained.
        data: For inputs.
        plain: A network of the same backbone that never heard of tasks.
        runs: Timed runs of each network.
    """
    images = np.concatenate(list(data.x_test.values())) if isinstance(data.x_test, dict) else data.x_test
    samples = [[image[None]] for image in images[:200]]
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        tflite_export.export(model, directory / "all.tflite")
        content = (directory / "all.tflite").read_bytes()
        agreement = [
            agreement_of(model.export(task=task), directory / "all.tflite", task, images) for task in model.tasks
        ]
        alone, timers = 0, {}
        for task in model.tasks:
            file = directory / f"alone_{task}.tflite"
            tflite_export.export(model, file, task=task)
            alone += file.stat().st_size
            timers[f"{task} in the file"] = timing.Timer(directory / "all.tflite", task=task)
            timers[f"{task} alone"] = timing.Timer(file)
        tflite_export.export(plain, directory / "plain.tflite")
        timers[PLAIN] = timing.Timer(directory / "plain.tflite")
        times = timing.in_turns(timers, samples, runs)
    medians = {name: float(np.median(found)) for name, found in times.items()}
    filters = 4 * sum(len(layer.stored_filters()) * layer.parameters_per_slot for layer in model.sharing_layers)
    parsed = flatbuffer.parse(content)
    constants = sum(len(buffer.data) for buffer in parsed.buffers if buffer.data is not None) - filters
    return {
        "share_rate": model.share_rate(),
        "bytes": len(content),
        "filters": filters,
        "constants": constants,
        "structure": len(content) - filters - constants,
        "bytes_over_filters_and_constants": len(content) / (filters + constants),
        "bytes_of_single_files": alone,
        **{key: max(found[key] for found in agreement) for key in agreement[0]},
        "latency_us": medians,
        "latency_over_alone": {task: medians[f"{task} in the file"] / medians[f"{task} alone"] for task in model.tasks},
        "latency_over_plain": {task: medians[f"{task} in the file"] / medians[PLAIN] for task in model.tasks},
    }


def agreement_of(
    plain: keras.Model, file: pathlib.Path, task: str, images: Array, count: int = 200
) -> dict[str, float]:
    """Largest differences of a task's logits in the file, in Keras, and in Keras computed with 64 bits."""
    images = images[:count]
    keras_ = plain.predict(images, verbose=0)
    file_ = tflite_export.load(file, task=task, delegate="none")(images).output
    exact = in_float64(plain)(images.astype("float64"), training=False)
    exact = keras.ops.convert_to_numpy(exact)
    probabilities = [keras.ops.convert_to_numpy(keras.ops.softmax(logits)) for logits in (file_, keras_)]
    return {
        "difference": _apart(file_, keras_),
        "largest_logit": float(np.abs(exact).max()),
        "difference_of_probabilities": _apart(*probabilities),
        "error_of_file": _apart(file_, exact),
        "error_of_keras": _apart(keras_, exact),
    }


def in_float64(model: keras.Model) -> keras.Model:
    """The same network, computed with 64 bits."""

    def wide(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": "float64"})

    made = keras.models.clone_model(model, clone_function=wide)
    copy_all_weights(model, made)
    return made


def _apart(one: Array, other: Array) -> float:
    return float(np.abs(one - other).max())
