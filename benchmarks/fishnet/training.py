"""One cell of the benchmark: one method trained on one data set with one learning rate and seed."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from benchmarks.fishnet.backbone import backbone
from benchmarks.fishnet.rivals import CrossStitch, HardSharing, LayerDecisions, gates, layer_decisions
from keras_efficient import cost
from keras_efficient.callbacks import FilterSharingSchedule
from keras_efficient.datasets import MultiTaskDataset, TaskBatches
from keras_efficient.models import MultiTask

WARMUP, SEARCH = 0.1, 0.2


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a data set is trained on.

    Attributes:
        width: Of the backbone.
        epochs: Of every method.
        batch_size: Images of all tasks together.
        shift: Of the augmentation, in pixels.
        share_rate: What filter sharing aims at.
        sharing: Variant of filter sharing.
        normalization: Of filter sharing: per `"task"` or `"shared"`.
    """

    width: int
    epochs: int
    batch_size: int
    shift: int
    share_rate: float
    sharing: str
    normalization: str = "task"


def cell(method: str, data: MultiTaskDataset, setting: Setting, learning_rate: float, seed: int) -> dict[str, Any]:
    """Trains and scores: accuracy in percent on validation and test data, cost of one task, parameters stored."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model, callbacks = METHODS[method](data, setting, seed)
    batches = TaskBatches(data.x_train, data.y_train, setting.batch_size, shift=setting.shift, seed=seed)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, len(batches) * setting.epochs)
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    start = time.perf_counter()
    model.fit(batches, epochs=setting.epochs, verbose=0, callbacks=callbacks)
    seconds = time.perf_counter() - start
    found = {
        "validation": accuracies(model, data.x_validation, data.y_validation),
        "test": accuracies(model, data.x_test, data.y_test),
        "stored_parameters": model.stored_parameters(),
        "macs_per_task": macs_per_task(model),
        "seconds": seconds,
    }
    if isinstance(model, MultiTask):
        found["share_rate"] = model.share_rate()
        found["sources"] = {name: sources.tolist() for name, sources in model.sources().items()}
        found["branches"] = [[gate.runs(t) for gate in gates(model)] for t in range(len(model.tasks))]
    return found


def accuracies(model: keras.Model, x: Any, y: Mapping[str, Any], size: int = 500) -> dict[str, float]:
    """Accuracy in percent by task."""
    if isinstance(x, dict):
        length = max(map(len, x.values()))  # rows of one image per task, filled up with the first ones
        x = np.stack([np.resize(images, (length, *images.shape[1:])) for images in x.values()], axis=1)
    pieces = [model(x[i : i + size], training=False) for i in range(0, len(x), size)]
    found = {}
    for task, labels in y.items():
        logits = np.concatenate([keras.ops.convert_to_numpy(piece[task]) for piece in pieces])[: len(labels)]
        found[task] = 100 * float((logits.argmax(axis=1) == labels).mean())
    return found


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


Made = tuple[Any, list[keras.callbacks.Callback]]


def _single(data: MultiTaskDataset, setting: Setting, seed: int) -> Made:
    model = MultiTask(backbone(data.input_shape, setting.width, seed), data.num_classes, seed=seed)
    model.share_nothing()
    return model, []


def _hard(data: MultiTaskDataset, setting: Setting, seed: int) -> Made:
    return HardSharing(data.input_shape, data.num_classes, setting.width, seed), []


def _hard_task_norm(data: MultiTaskDataset, setting: Setting, seed: int) -> Made:
    model = MultiTask(backbone(data.input_shape, setting.width, seed), data.num_classes, seed=seed)
    model.share_all()
    return model, []


def _cross_stitch(data: MultiTaskDataset, setting: Setting, seed: int) -> Made:
    return CrossStitch(data.input_shape, data.num_classes, setting.width, seed), []


def _layers(data: MultiTaskDataset, setting: Setting, seed: int) -> Made:
    model = layer_decisions(data.input_shape, data.num_classes, setting.width, seed)
    return model, [LayerDecisions(WARMUP, SEARCH)]


def _filters(normalization: str) -> Callable[[MultiTaskDataset, Setting, int], Made]:
    def make(data: MultiTaskDataset, setting: Setting, seed: int) -> Made:
        model = MultiTask(
            backbone(data.input_shape, setting.width, seed),
            data.num_classes,
            sharing=setting.sharing,
            normalization=normalization,
            seed=seed,
        )
        return model, [FilterSharingSchedule(setting.share_rate, warmup=WARMUP, search=SEARCH)]

    return make


METHODS: dict[str, Callable[[MultiTaskDataset, Setting, int], Made]] = {
    "filter_sharing_task_norm": _filters("task"),
    "filter_sharing": _filters("shared"),
    "hard_sharing": _hard,
    "hard_sharing_task_norm": _hard_task_norm,
    "single_task": _single,
    "layer_decisions": _layers,
    "cross_stitch": _cross_stitch,
}
