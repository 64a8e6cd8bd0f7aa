"""How a network of several tasks is trained: labels that may be missing, one loss per task, a target share rate."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_efficient.layers.filter_sharing import FilterSharing
from keras_efficient.layers.filter_sharing_decisions import share_rate

Tensor = Any


class TaskTraining(keras.Model):
    """What `MultiTask` adds to `compile` and `fit`."""

    tasks: tuple[str, ...]
    sharing_layers: list[FilterSharing]
    heads: list[keras.layers.Layer]

    def add_sharing_weights(self) -> None:
        """Makes the scalars by which a callback steers how much is shared; all 0 until it does."""
        scalar: dict[str, Any] = {"shape": (), "dtype": "float32", "initializer": "zeros", "trainable": False}
        self.share_target = self.add_weight(name="share_target", **scalar)
        self.share_strength = self.add_weight(name="share_strength", **scalar)
        self.private_price = self.add_weight(name="private_price", **scalar)

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """As `keras.Model.compile`, with one loss and one list of metrics for all tasks, or dictionaries by task.

        Every task's loss is the mean over the samples that have a label for it. Decisions are left out of weight decay.

        Raises:
            ValueError: If a dictionary names an unknown task.
        """
        for name, value in {"loss": loss, "loss_weights": loss_weights, "metrics": metrics}.items():
            if isinstance(value, Mapping):
                self.check_tasks(name, value)
        if loss is not None and not isinstance(loss, Mapping):
            loss = dict.fromkeys(self.tasks, loss)
        if isinstance(loss_weights, Sequence):
            loss_weights = dict(zip(self.tasks, loss_weights, strict=True))
        by_task: dict[str, list[Any]] = {task: [] for task in self.tasks}
        for given in (metrics, weighted_metrics):
            if given is None:
                continue
            each = given if isinstance(given, Mapping) else dict.fromkeys(self.tasks, given)
            for task, value in each.items():
                by_task[task] += [_copied(metric) for metric in keras.tree.flatten(value)]
        masked = by_task if any(by_task.values()) else None  # weighted: unlabelled samples do not count
        super().compile(optimizer=optimizer, loss=loss, loss_weights=loss_weights, weighted_metrics=masked, **kwargs)
        exclude = getattr(self.optimizer, "exclude_from_weight_decay", None)
        if exclude is not None and not self.optimizer.built:
            exclude(var_list=[layer.logits for layer in self.sharing_layers if layer.logits is not None])

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """As `keras.Model.fit`.

        Labels are a dictionary by task, which may leave tasks out. A negative whole number, or NaN, stands for a sample
        without a label for that task. Inputs are those of the backbone, or a dictionary with the inputs of each task,
        where each task has samples of its own.

        Raises:
            ValueError: If a task is unknown, no task has a label, or a label has no unit in the task's head.
        """
        self.check_labels(y)
        return super().fit(x, y, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`, with labels as in `fit`."""
        self.check_labels(y)
        return super().evaluate(x, y, **kwargs)

    def train_on_batch(self, x: Any, y: Any = None, **kwargs: Any) -> Any:
        """As `keras.Model.train_on_batch`, with labels as in `fit`."""
        self.check_labels(y)
        return super().train_on_batch(x, y, **kwargs)

    def check_tasks(self, argument: str, given: Any) -> None:
        """Raises a `ValueError` unless `given` is a dictionary whose keys are tasks."""
        if not isinstance(given, Mapping) or not given or not set(given) <= set(self.tasks):
            received = sorted(given) if isinstance(given, Mapping) else type(given).__name__
            raise ValueError(
                f"Invalid value for argument `{argument}`. Expected a dictionary by task, with keys among "
                f"{list(self.tasks)}. Received: {received}"
            )

    def check_labels(self, y: Any) -> None:
        """Raises a `ValueError` if labels (NumPy arrays by task) cannot be what the heads learn."""
        if y is None:
            return
        self.check_tasks("y", y)
        arrays = {task: np.asarray(labels) for task, labels in y.items() if isinstance(labels, (np.ndarray, list))}
        known = {task: _is_known(labels) for task, labels in arrays.items()}
        if len(arrays) == len(y) and not any(mask.any() for mask in known.values()):
            raise ValueError(
                "Invalid value for argument `y`. Expected a label for some task. Received: none that is not negative "
                "or NaN"
            )
        for task, labels in arrays.items():
            units = self.head_units(task)
            numbers_classes = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer) and (units or 0) > 1
            if numbers_classes and known[task].any() and labels.max() >= units:
                raise ValueError(
                    f"Invalid value for argument `y`. Expected labels of task {task!r} below {units}, the units of its "
                    f"head. Received: {labels.max()}"
                )

    def head_units(self, task: str) -> int | None:
        """Size of the last axis of a task's output."""
        raise NotImplementedError(f"{type(self).__name__} does not implement `head_units()`.")

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        y, masks, y_pred = self._complete(y, y_pred)
        weights = {}
        for task, mask in masks.items():
            # Keras divides by all samples; a task's loss is the mean over its labelled ones.
            scale = ops.cast(ops.size(mask), mask.dtype) / ops.maximum(ops.sum(mask), 1.0)
            given = (sample_weight or {}).get(task) if isinstance(sample_weight, Mapping) else sample_weight
            weights[task] = mask * scale * (1.0 if given is None else ops.cast(given, mask.dtype))
        loss = super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weights, training=training)
        return loss + self.sharing_loss() if training and self._searches() else loss

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        y, masks, y_pred = self._complete(y, y_pred)
        return super().compute_metrics(x, y, y_pred, masks)

    def _searches(self) -> bool:
        return any(layer.num_tasks > 1 for layer in self.sharing_layers)

    def sharing_loss(self) -> Tensor:
        """`strength (share_rate - target)^2 + price (1 - share_rate)`, with the coefficients that a callback set."""
        rate = self.current_share_rate()
        return self.share_strength * ops.square(rate - self.share_target) + self.private_price * (1.0 - rate)

    def current_share_rate(self) -> Tensor:
        """1 where all tasks use the same filters, 0 where each has its own, by parameters; has a gradient in search."""
        sizes = [layer.parameters_per_slot * layer.slots for layer in self.sharing_layers]
        filters = sum(size * layer.filters_per_slot() for size, layer in zip(sizes, self.sharing_layers, strict=True))
        return share_rate(filters / sum(sizes), len(self.tasks))

    def _complete(self, y: Any, y_pred: Any) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Labels, masks `[B]` (1 where there is a label) and predictions of all tasks."""
        self.check_tasks("y", y)
        labels, masks, outputs = {}, {}, {}
        for task in self.tasks:
            found = y.get(task) if task in y_pred else None
            outputs[task] = y_pred[task] if task in y_pred else ops.zeros((1, self.head_units(task) or 1))
            if found is None:
                labels[task] = self._placeholder(task, outputs[task])
                masks[task] = ops.zeros_like(ops.cast(outputs[task], "float32"))[:, 0]
            else:
                labels[task], masks[task] = _with_mask(found)
        return labels, masks, outputs

    def _placeholder(self, task: str, output: Tensor) -> Tensor:
        """Labels of the right rank where a task has none."""
        loss = self.loss[task] if isinstance(self.loss, Mapping) else self.loss
        named = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
        zeros = ops.zeros_like(output)
        return ops.cast(zeros[:, 0], "int32") if str(named).startswith("sparse") else zeros


def _is_known(labels: Any) -> Any:
    """`[B]`, whether each sample has a label."""
    known = labels >= 0 if np.issubdtype(labels.dtype, np.integer) else ~np.isnan(labels)
    return known.reshape(len(labels), -1).all(axis=1)


def _with_mask(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Labels with zeros where there are none, and 1 where there are."""
    labels = ops.convert_to_tensor(labels)
    whole = "int" in keras.backend.standardize_dtype(labels.dtype)
    known = labels >= 0 if whole else ops.logical_not(ops.isnan(labels))
    cleaned = ops.where(known, labels, ops.zeros_like(labels))
    axes = tuple(range(1, len(labels.shape)))
    return cleaned, ops.cast(ops.all(known, axis=axes) if axes else known, "float32")


def _copied(metric: Any) -> Any:
    """A metric with state of its own; names and functions are as good as copies."""
    return type(metric).from_config(metric.get_config()) if isinstance(metric, keras.metrics.Metric) else metric
