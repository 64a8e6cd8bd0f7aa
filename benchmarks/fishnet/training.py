"""One cell of the benchmark: one method trained on one data set with one learning rate and seed."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from benchmarks.fishnet.backbone import backbone
from benchmarks.fishnet.rivals import CrossStitch, HardSharing, LayerDecisions, NormalizedApart, gates, layer_decisions
from keras_efficient import cost
from keras_efficient.callbacks import FilterSharingSchedule
from keras_efficient.datasets import MultiTaskDataset, TaskBatches
from keras_efficient.models import MultiTask


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a data set is trained on.

    Attributes:
        width: Of the backbone.
        epochs: Of every method.
        batch_size: Images of all tasks together.
        shift: Of the augmentation, in pixels.
        rotation: Of the augmentation, in degrees.
        share_rate: What filter sharing aims at.
        leaner: What it aims at in the row `"filter_sharing_leaner"`, which stores fewer private filters.
        warmup, search: Shares of the epochs in which tasks are not yet told apart, and in which decisions are made.
            Methods with these phases take one cosine of the learning rate until then, down to a tenth, and another one
            from there; all others one.
    """

    width: int
    epochs: int
    batch_size: int
    shift: int
    rotation: float
    share_rate: float
    leaner: float
    warmup: float
    search: float

    def rate(self, epoch: int, peak: float, phases: bool) -> float:
        """The learning rate of an epoch."""
        hardened = round((self.warmup + self.search) * self.epochs) if phases else 0
        if epoch < hardened:
            return peak * (0.1 + 0.9 * _cosine((epoch + 0.5) / hardened))
        return peak * _cosine((epoch - hardened + 0.5) / (self.epochs - hardened))


def _cosine(done: float) -> float:
    """From 1 to 0 as `done` goes from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * done))


class Trainer:
    """Trains cells on one data set.

    Args:
        data: The data set.
        setting: How it is trained on.
    """

    def __init__(self, data: MultiTaskDataset, setting: Setting) -> None:
        self.data = data
        self.setting = setting
        self._compiled: tuple[str, Any] = ("", None)

    def cell(self, method: str, learning_rate: float, seed: int, weights: pathlib.Path | None = None) -> dict[str, Any]:
        """Trains and scores: accuracy in percent on validation and test data, cost of one task, parameters stored.

        A network of filter sharing leaves its weights in the file `weights`.
        """
        data, setting = self.data, self.setting
        keras.utils.set_random_seed(seed)
        batches = TaskBatches(
            data.x_train, data.y_train, setting.batch_size, shift=setting.shift, rotation=setting.rotation, seed=seed
        )
        model = self._network(method, seed, batches[0][0])
        callbacks = CALLBACKS[method](setting) if method in CALLBACKS else []

        def rate(epoch: int) -> float:
            return setting.rate(epoch, learning_rate, method in CALLBACKS)

        start, spent = time.perf_counter(), time.process_time()
        callbacks.append(keras.callbacks.LearningRateScheduler(rate))
        model.fit(batches, epochs=setting.epochs, verbose=0, callbacks=callbacks)
        seconds, spent = time.perf_counter() - start, time.process_time() - spent
        found = {
            "validation": accuracies(model, data.x_validation, data.y_validation),
            "test": accuracies(model, data.x_test, data.y_test),
            "stored_parameters": model.stored_parameters(),
            "macs_per_task": macs_per_task(model),
            "seconds": seconds,
            "processor_seconds": spent,
        }
        if weights is not None and method == "filter_sharing":
            weights.parent.mkdir(parents=True, exist_ok=True)
            np.savez(weights, *model.get_weights())
        if isinstance(model, MultiTask):
            found["share_rate"] = model.share_rate()
            found["sources"] = {name: sources.tolist() for name, sources in model.sources().items()}
            found["branches"] = [[gate.runs(t) for gate in gates(model)] for t in range(len(model.tasks))]
        return found

    def _network(self, method: str, seed: int, images: Any) -> Any:
        """A compiled network in its initial state; seeds of one method use the same, for compiling takes long."""
        name, kept = self._compiled
        if name != method:
            keras.backend.clear_session()
        fresh = METHODS[method](self.data, self.setting, seed)
        if not fresh.built:
            fresh(images)
        if name != method:
            self._compiled = (method, fresh)
            fresh.compile(
                keras.optimizers.Adam(),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                jit_compile=keras.backend.backend() == "jax",
            )
            return fresh
        for variable, initial in zip(kept.variables, fresh.variables, strict=True):
            variable.assign(initial)
        for variable in kept.optimizer.variables:
            variable.assign(keras.ops.zeros_like(variable))
        return kept


def accuracies(model: keras.Model, x: Any, y: Mapping[str, Any], size: int = 500) -> dict[str, float]:
    """Accuracy in percent by task."""
    if isinstance(x, dict):
        length = max(map(len, x.values()))  # rows of one image per task, filled up with the first ones
        x = np.stack([np.resize(images, (length, *images.shape[1:])) for images in x.values()], axis=1)
    logits = model.predict(x, batch_size=min(size, len(x)), verbose=0)
    return {
        task: 100 * float((logits[task][: len(labels)].argmax(axis=1) == labels).mean()) for task, labels in y.items()
    }


def macs_per_task(model: Any) -> float:
    """Multiply-adds that answering one task for one image takes, on average over the tasks."""
    head = float(np.mean([layer.kernel.shape[0] * layer.kernel.shape[1] for layer in model.heads]))
    if not isinstance(model, MultiTask):
        return float(model.macs) + head
    total = 0.0
    for t, task in enumerate(model.tasks):
        skipped = [f"block_{k}_{i}_conv" for k, gate in enumerate(gates(model)) if not gate.runs(t) for i in (1, 2)]
        layers = cost.profile(model.network(task)).layers
        total += sum(layer.macs for layer in layers if layer.name not in skipped)
    return total / len(model.tasks)


def _single(data: MultiTaskDataset, setting: Setting, seed: int) -> MultiTask:
    model = filter_sharing(data, setting, seed)
    model.share_nothing()
    return model


def _hard(data: MultiTaskDataset, setting: Setting, seed: int) -> HardSharing:
    return HardSharing(data.input_shape, data.num_classes, setting.width, seed)


def _hard_task_norm(data: MultiTaskDataset, setting: Setting, seed: int) -> MultiTask:
    model = filter_sharing(data, setting, seed)
    model.share_all()
    return model


def _cross_stitch(data: MultiTaskDataset, setting: Setting, seed: int) -> CrossStitch:
    return CrossStitch(data.input_shape, data.num_classes, setting.width, seed)


def _layers(data: MultiTaskDataset, setting: Setting, seed: int) -> MultiTask:
    return layer_decisions(data.input_shape, data.num_classes, setting.width, seed)


def filter_sharing(data: MultiTaskDataset, setting: Setting, seed: int) -> MultiTask:
    """The network of filter sharing, untrained."""
    return MultiTask(backbone(data.input_shape, setting.width, seed), data.num_classes, sharing="pool", seed=seed)


METHODS: dict[str, Callable[[MultiTaskDataset, Setting, int], Any]] = {
    "filter_sharing": filter_sharing,
    "filter_sharing_leaner": filter_sharing,
    "hard_sharing": _hard,
    "hard_sharing_task_norm": _hard_task_norm,
    "single_task": _single,
    "layer_decisions": _layers,
    "cross_stitch": _cross_stitch,
}
CALLBACKS: dict[str, Callable[[Setting], list[keras.callbacks.Callback]]] = {
    "filter_sharing": lambda s: [FilterSharingSchedule(s.share_rate, warmup=s.warmup, search=s.search)],
    "filter_sharing_leaner": lambda s: [FilterSharingSchedule(s.leaner, warmup=s.warmup, search=s.search)],
    "hard_sharing_task_norm": lambda s: [NormalizedApart(s.warmup)],
    "layer_decisions": lambda s: [LayerDecisions(s.warmup, s.search)],
}
