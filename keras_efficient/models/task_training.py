"""How a network of several tasks is trained: labels that may be missing, one loss per task, a target share rate."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_efficient.layers.filter_sharing import FilterSharing
from keras_efficient.layers.filter_sharing_decisions import share_rate

Tensor = Any


class TaskTraining(keras.Model):
    """What `MultiTask` adds to `compile` and `fit`."""

    tasks: tuple[str, ...]
    sharing_layers: list[FilterSharing]
    heads: list[keras.layers.Layer]
    _weighs_metrics = False

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

        Every task's loss is the mean over the samples of a batch that have a label for it, and metrics are those over
        all such samples; `sample_weight` counts in `weighted_metrics`. Decisions are left out of weight decay.

        Raises:
            ValueError: If a dictionary names an unknown task, a list does not have an entry for each task, or there are
                both `metrics` and `weighted_metrics`.
        """
        given = {"loss": loss, "loss_weights": loss_weights, "metrics": metrics, "weighted_metrics": weighted_metrics}
        for name, value in given.items():
            if isinstance(value, Mapping):
                self.check_tasks(name, value)
        if metrics is not None and weighted_metrics is not None:
            raise ValueError(
                "Invalid value for argument `weighted_metrics`. Expected None beside `metrics`. "
                f"Received: {weighted_metrics!r}"
            )
        loss = self._by_task("loss", loss)
        if isinstance(loss_weights, (list, tuple)):
            loss_weights = self._by_task("loss_weights", loss_weights)
        self._weighs_metrics = weighted_metrics is not None
        by_task: dict[str, list[Any]] = {task: [] for task in self.tasks}
        measured = weighted_metrics if metrics is None else metrics
        if measured is not None:
            each = measured if isinstance(measured, Mapping) else dict.fromkeys(self.tasks, measured)
            for task, value in each.items():
                by_task[task] += [_copied(metric) for metric in keras.tree.flatten(value) if metric is not None]
        masked = by_task if any(by_task.values()) else None  # weighted: unlabelled samples do not count
        super().compile(optimizer=optimizer, loss=loss, loss_weights=loss_weights, weighted_metrics=masked, **kwargs)
        decisions = [layer.logits for layer in self.sharing_layers if layer.logits is not None]
        optimizers = (self.optimizer, getattr(self.optimizer, "inner_optimizer", None))  # of mixed precision
        for optimizer in optimizers:
            exclude = getattr(optimizer, "exclude_from_weight_decay", None)
            if optimizer is not None and exclude is not None and not optimizer.built:
                exclude(var_list=decisions)

    def _by_task(self, name: str, value: Any) -> Any:
        """An argument of `compile` as a dictionary by task; one value is that of all."""
        if value is None or isinstance(value, Mapping):
            return value
        if not isinstance(value, (list, tuple)):
            return dict.fromkeys(self.tasks, value)
        if len(value) != len(self.tasks):
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected one entry for each of the {len(self.tasks)} tasks. "
                f"Received: {len(value)}"
            )
        return dict(zip(self.tasks, value, strict=True))

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.fit`.

        Labels are a dictionary by task, which may leave tasks out. A negative whole number, or NaN, stands for a sample
        without a label for that task. Inputs are those of the backbone, or a dictionary with the inputs of each task,
        where each task has samples of its own, and as many as it likes: shorter arrays go round again without labels
        (`datasets.TaskBatches` deals them without such padding).

        Raises:
            ValueError: If a task is unknown, no task has a label, a label has no unit in the task's head, or a task
                with labels has no inputs.
        """
        self.check_labels(y, x)
        held_out = kwargs.get("validation_data")
        if isinstance(held_out, (tuple, list)):
            self.check_labels(*reversed(held_out[:2]))
            kwargs["validation_data"] = (*self._evened(*held_out[:2]), *held_out[2:])
        return super().fit(*self._evened(x, y), *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`, with labels as in `fit`."""
        self.check_labels(y, x)
        return super().evaluate(*self._evened(x, y), *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.predict`, with inputs as in `fit`: a dictionary by task gives each task's own outputs."""
        outputs = super().predict(self._evened(x)[0], *args, **kwargs)
        return {task: outputs[task][: len(x[task])] for task in x} if self._has_own_arrays(x) else outputs

    def train_on_batch(self, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.train_on_batch`, with labels as in `fit`."""
        self.check_labels(y, x)
        return super().train_on_batch(*self._evened(x, y), *args, **kwargs)

    def _has_own_arrays(self, x: Any) -> bool:
        """Whether inputs are arrays by task."""
        by_task = isinstance(x, Mapping) and bool(x) and set(x) <= set(self.tasks)
        return by_task and all(isinstance(array, np.ndarray) for array in x.values())

    def _evened(self, x: Any, y: Any = None) -> tuple[Any, Any]:
        """Arrays by task of one length: shorter ones go round again, without labels."""
        if not self._has_own_arrays(x) or len({len(array) for array in x.values()}) == 1:
            return x, y
        length = max(len(array) for array in x.values())
        rounds = {task: np.resize(array, (length, *array.shape[1:])) for task, array in x.items()}
        return rounds, y and {task: _filled(np.asarray(labels), length) for task, labels in y.items()}

    def check_tasks(self, argument: str, given: Any) -> None:
        """Raises a `ValueError` unless `given` is a dictionary whose keys are tasks."""
        if not isinstance(given, Mapping) or not given or not set(given) <= set(self.tasks):
            received = sorted(given) if isinstance(given, Mapping) else type(given).__name__
            raise ValueError(
                f"Invalid value for argument `{argument}`. Expected a dictionary by task, with keys among "
                f"{list(self.tasks)}. Received: {received}"
            )

    def check_labels(self, y: Any, x: Any = None) -> None:
        """Raises a `ValueError` if labels (NumPy arrays by task) cannot be what the heads learn from inputs `x`."""
        if y is None:
            return
        self.check_tasks("y", y)
        if isinstance(x, Mapping) and set(x) & set(self.tasks) and not set(y) <= set(x):
            raise ValueError(
                f"Invalid value for argument `y`. Expected labels of tasks that have inputs, {sorted(x)}. "
                f"Received: {sorted(y)}"
            )
        arrays = {task: np.asarray(labels) for task, labels in y.items() if isinstance(labels, (np.ndarray, list))}
        known = {task: _is_known(labels) for task, labels in arrays.items()}
        if len(arrays) == len(y) and not any(mask.any() for mask in known.values()):
            raise ValueError(
                "Invalid value for argument `y`. Expected a label for some task. Received: none that is not negative "
                "or NaN"
            )
        for task, labels in arrays.items():
            units = self.head_units(task)
            one_each = labels.ndim == 1 or labels.shape[1:] == (1,)
            numbers_classes = one_each and np.issubdtype(labels.dtype, np.integer) and (units or 0) > 1
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
            weights[task] = _weighted(mask, task, sample_weight)
            if getattr(self._loss_of(task), "reduction", "sum_over_batch_size") != "sum":
                # Keras divides by all samples; a task's loss is the mean over its labelled ones.
                weights[task] *= ops.cast(ops.size(mask), mask.dtype) / ops.maximum(ops.sum(mask), 1.0)
        loss = super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weights, training=training)
        return loss + self.sharing_loss() if training and self._searches() else loss

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        y, masks, y_pred = self._complete(y, y_pred)
        if self._weighs_metrics:
            masks = {task: _weighted(mask, task, sample_weight) for task, mask in masks.items()}
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
        """Labels, masks and predictions of all tasks; masks are 1 where a sample has a label, `[B, 1...]` as losses."""
        self.check_tasks("y", y)
        labels, masks, outputs = {}, {}, {}
        for task in self.tasks:
            found = y.get(task) if task in y_pred else None
            outputs[task] = y_pred[task] if task in y_pred else ops.zeros((1, self.head_units(task) or 1))
            if found is None:
                labels[task] = self._placeholder(task, outputs[task])
                whole = ops.zeros_like(ops.cast(outputs[task], "float32"))
                known = whole[(slice(None), *[0] * (len(whole.shape) - 1))]
            else:
                labels[task], known = _with_mask(found)
            masks[task] = ops.reshape(known, (-1, *[1] * (len(outputs[task].shape) - 2)))
        return labels, masks, outputs

    def _placeholder(self, task: str, output: Tensor) -> Tensor:
        """Labels of the right rank where a task has none."""
        loss = self._loss_of(task)
        named = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
        zeros = ops.zeros_like(output)
        return ops.cast(zeros[..., 0], "int32") if str(named).lower().startswith("sparse") else zeros

    def _loss_of(self, task: str) -> Any:
        return self.loss.get(task) if isinstance(self.loss, Mapping) else self.loss


def _is_known(labels: Any) -> Any:
    """`[B]`, whether each sample has a label."""
    known = labels >= 0 if np.issubdtype(labels.dtype, np.integer) else ~np.isnan(labels)
    return known.reshape(len(labels), -1).all(axis=1)


def _filled(labels: NDArray[Any], length: int) -> NDArray[Any]:
    """Labels up to a length, of which those that are added say that there is none."""
    whole = np.issubdtype(labels.dtype, np.integer)
    filled = np.full((length, *labels.shape[1:]), -1 if whole else np.nan, "int64" if whole else labels.dtype)
    filled[: len(labels)] = labels
    return filled


def _weighted(mask: Tensor, task: str, sample_weight: Any) -> Tensor:
    """A mask times the weights of samples, which may be given by task."""
    given = sample_weight.get(task) if isinstance(sample_weight, Mapping) else sample_weight
    if given is None:
        return mask
    given = ops.cast(given, mask.dtype)
    return mask * ops.reshape(given, (-1, *[1] * (len(mask.shape) - 1))) if len(given.shape) == 1 else mask * given


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
