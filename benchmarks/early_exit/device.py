"""The exported networks: agreement with Keras on every test image, and what a saved multiply-add is worth in time."""

import pathlib
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_efficient import datasets, tflite_export
from keras_efficient.demo import timing
from keras_efficient.models import MultiExit

Array = NDArray[Any]
MARGIN = 1e-5  # scores and logits closer than this may fall on either side in two implementations
FORMS: dict[str, dict[str, Any]] = {"float32": {}, "int8": {"quantize": "int8"}}


def files(
    network: MultiExit, statics: dict[str, keras.Model], dataset: datasets.Dataset, directory: pathlib.Path
) -> dict[str, dict[str, Any]]:
    """Exports the network as one file and staged, and the static networks, in float32 and int8."""
    directory.mkdir(parents=True, exist_ok=True)
    said: dict[str, dict[str, Any]] = {}
    for form, options in FORMS.items():
        data = dataset.x_validation[:500]
        for name, model, more in [
            ("dynamic", network, {}),
            ("staged", network, {"staged": True}),
            *((name, model, {}) for name, model in statics.items()),
        ]:
            path = directory / f"{name}_{form}.tflite"
            report = tflite_export.export(model, path, representative_data=data, **options, **more)
            said[path.stem] = {"bytes": report.bytes, "parity": report.parity, "notes": list(report.notes)}
            said[path.stem] |= {} if report.quantized is None else {"quantized": report.quantized}
    return said


def agreement(network: MultiExit, dataset: datasets.Dataset, directory: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Exits and labels of the one-file network on every test image, beside the masked evaluation in Keras."""
    everything = network.predict_all(dataset.x_test, batch_size=250, verbose=0)
    logits, taken = network.predict_exits(dataset.x_test, batch_size=250, verbose=0)
    scores = _closest_scores(network, dataset.x_test)
    labels = logits.argmax(axis=1)
    close = (scores < MARGIN) | (_margin(logits) < MARGIN)
    found: dict[str, dict[str, Any]] = {}
    for form in FORMS:
        result = tflite_export.load(directory / f"dynamic_{form}.tflite")(dataset.x_test)
        assert result.exit_index is not None
        device = result.output.argmax(axis=1)
        other = (device != labels) | (result.exit_index != taken)
        found[form] = {
            "accuracy": float((device == dataset.y_test).mean()),
            "keras_accuracy": float((labels == dataset.y_test).mean()),
            "last_exit_accuracy": float((list(everything.values())[-1].argmax(axis=1) == dataset.y_test).mean()),
            "other_labels": int((device != labels).sum()),
            "other_exits": int((result.exit_index != taken).sum()),
            "other_beyond_margin": int((other & ~close).sum()),
            "within_margin": int(close.sum()),
            "exit_shares": (np.bincount(result.exit_index, minlength=network.num_exits) / len(taken)).tolist(),
            "executed_macs": float(result.executed_macs.mean()),
        }
    return found


def _closest_scores(network: MultiExit, x: Array) -> Array:
    """How near to 0 each image's decisive scores come: the smallest size of a score up to the exit taken."""
    data = network.exit_data(x, np.zeros(len(x), int), batch_size=250)
    from keras_efficient.policies import ExitData

    features = ExitData(**data).features
    policy = network.policy
    assert policy is not None
    scores = np.stack(
        [keras.ops.convert_to_numpy(policy(features[:, k], exit_index=k)) for k in range(network.num_exits - 1)],
        axis=1,
    )
    reached = np.cumprod(np.concatenate([np.ones((len(x), 1)), scores[:, :-1] <= 0], axis=1), axis=1).astype(bool)
    return np.asarray(np.where(reached, np.abs(scores), np.inf).min(axis=1))


def _margin(logits: Array) -> Array:
    top = np.sort(logits, axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0])


def latencies(
    statics: dict[str, keras.Model], dataset: datasets.Dataset, directory: pathlib.Path, count: int, threads: int
) -> dict[str, dict[str, Any]]:
    """Mean and p95 of one pass over test images at batch 1, all files in turns; exits and stage times beside them.

    `realised` is the mean of the stages that each image really ran, timed one by one in the staged file, over the mean
    of the one-file network.
    """
    found: dict[str, dict[str, Any]] = {}
    images = dataset.x_test[:count]
    for form in FORMS:
        names = ["dynamic", *statics]
        timers = {name: timing.Timer(directory / f"{name}_{form}.tflite", threads=threads) for name in names}
        times = timing.in_turns(timers, [[image[None]] for image in images])
        taken = tflite_export.load(directory / f"dynamic_{form}.tflite", num_threads=threads)(images).exit_index
        stages = tflite_export.measure_stages(directory / f"staged_{form}.tflite", images[:64], num_threads=threads)
        found[form] = {name: timing.summary(times[name]) for name in names}
        found[form]["stages_us"] = [float(us) for us in stages]
        found[form]["realised"] = float(np.asarray(stages)[taken].mean() / times["dynamic"].mean())
        found[form]["by_exit_us"] = {
            str(k): float(times["dynamic"][taken == k].mean()) for k in np.unique(taken).tolist()
        }
    return found
