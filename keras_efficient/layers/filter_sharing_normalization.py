"""`TaskBatchNormalization`: one batch normalisation per task."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_efficient.layers.filter_sharing import check_count, check_task

Tensor = Any
Shape = Sequence[int | None]


@keras.saving.register_keras_serializable(package="keras_efficient")
class TaskBatchNormalization(keras.layers.Layer):
    """Batch normalisation with scale, offset and statistics of each task's own.

    A filter that tasks share still sees other inputs in each of them, so its outputs are distributed differently. Where
    tasks are alike, one normalisation for all (`shared=True`) knows its statistics from more samples; run at once, the
    tasks are then normalised by the statistics of all of them together.

    >>> layer = TaskBatchNormalization(num_tasks=2)
    >>> y = layer(x, task=1, training=True)                    # statistics of task 1 alone move

    Args:
        num_tasks: Number of tasks `T`.
        frozen_tasks: The first so many are finished: theirs run in inference mode and are not trainable.
        shared: Whether there is one normalisation for all tasks.
        momentum, epsilon, center, scale: As in `keras.layers.BatchNormalization`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[B, ..., C]`.
        task: Index of the task, by keyword; None for all tasks at once, side by side in `[B, ..., T C]`.
        training: Whether to use and follow the batch's statistics.
    """

    by_task = True  # `call` takes the index of a task

    def __init__(
        self,
        num_tasks: int = 2,
        frozen_tasks: int = 0,
        shared: bool = False,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_count("num_tasks", num_tasks, 1)
        check_count("frozen_tasks", frozen_tasks, 0)
        if frozen_tasks >= num_tasks:
            raise ValueError(
                f"Invalid value for argument `frozen_tasks`. Expected fewer than the {num_tasks} tasks. "
                f"Received: {frozen_tasks}"
            )
        self.num_tasks = num_tasks
        self.frozen_tasks = frozen_tasks
        self.shared = shared
        self.momentum = momentum
        self.epsilon = epsilon
        self.center = center
        self.scale = scale

    @property
    def num_rows(self) -> int:
        """How many normalisations there are."""
        return 1 if self.shared else self.num_tasks

    @property
    def frozen_rows(self) -> int:
        """How many of them, from the first, stay as they are."""
        return min(self.frozen_tasks, self.num_rows)

    def build(self, inputs_shape: Shape) -> None:
        self.channels = int(inputs_shape[-1] or 0)
        learned = (self.num_rows - self.frozen_rows, self.channels)
        frozen = (self.frozen_rows, self.channels)
        self.gamma = self.add_weight(name="gamma", shape=learned, initializer="ones") if self.scale else None
        self.beta = self.add_weight(name="beta", shape=learned, initializer="zeros") if self.center else None
        fixed: dict[str, Any] = {"trainable": False, "autocast": False, "dtype": self.variable_dtype}
        self.frozen_gamma = self.frozen_beta = None
        if self.frozen_rows and self.scale:
            self.frozen_gamma = self.add_weight(name="frozen_gamma", shape=frozen, initializer="ones", **fixed)
        if self.frozen_rows and self.center:
            self.frozen_beta = self.add_weight(name="frozen_beta", shape=frozen, initializer="zeros", **fixed)
        moving = (self.num_rows, self.channels)
        self.moving_mean = self.add_weight(name="moving_mean", shape=moving, initializer="zeros", **fixed)
        self.moving_variance = self.add_weight(name="moving_variance", shape=moving, initializer="ones", **fixed)

    def call(self, inputs: Tensor, task: int | None = 0, training: bool | None = None) -> Tensor:
        if task is not None:
            check_task(task, self.num_tasks)
        one = task is not None or self.shared
        number = 0 if self.shared else task
        rows = slice(None) if number is None else slice(number, number + 1)
        x = ops.cast(inputs, "float32")
        if task is None and self.shared:  # [B, ..., T, C]
            x = ops.reshape(x, (-1, *inputs.shape[1:-1], self.num_tasks, self.channels))
        mean, variance = self.moving_mean.value[rows], self.moving_variance.value[rows]
        learns = np.arange(self.num_rows) >= self.frozen_rows
        if training and self.trainable and learns[rows].any():
            axes = list(range(len(x.shape) - 1))
            batch = [ops.reshape(value, (-1, self.channels)) for value in ops.moments(x, axes)]
            moves = learns & ((np.arange(self.num_rows) == number) | (not one))
            for moving, found in zip((self.moving_mean, self.moving_variance), batch, strict=True):
                self._follow(moving, ops.stop_gradient(found), moves)
            learning = ops.convert_to_tensor(learns[rows][:, None])
            mean, variance = ops.where(learning, batch[0], mean), ops.where(learning, batch[1], variance)
        y = ops.batch_normalization(
            x,
            ops.reshape(mean, (-1,)),
            ops.reshape(variance, (-1,)),
            axis=-1,
            offset=_rows(self.frozen_beta, self.beta, rows),
            scale=_rows(self.frozen_gamma, self.gamma, rows),
            epsilon=self.epsilon,
        )
        return ops.cast(ops.reshape(y, (-1, *inputs.shape[1:])), self.compute_dtype)

    def _follow(self, moving: Any, found: Tensor, moves: NDArray[Any]) -> None:
        """Moves the statistics of some tasks a step towards those of the batch."""
        moved = moving.value * self.momentum + found * (1.0 - self.momentum)
        moving.assign(ops.where(ops.convert_to_tensor(moves[:, None]), moved, moving.value))

    def get_rows(self) -> list[NDArray[Any]]:
        """Scales, offsets (where there are any), moving means and variances, `[tasks, channels]` each."""
        found = [
            ops.convert_to_numpy(ops.reshape(_rows(f, w, slice(None)), (-1, self.channels))) for f, w in self._pairs()
        ]
        return [*found, *(ops.convert_to_numpy(moving.value) for moving in (self.moving_mean, self.moving_variance))]

    def set_rows(self, values: Sequence[NDArray[Any]]) -> None:
        """Sets what `get_rows` gives."""
        for (frozen, learned), value in zip(self._pairs(), values, strict=False):
            if frozen is not None:
                frozen.assign(value[: self.frozen_rows])
            learned.assign(value[self.frozen_rows :])
        self.moving_mean.assign(values[-2])
        self.moving_variance.assign(values[-1])

    def _pairs(self) -> list[tuple[Any, Any]]:
        pairs = ((self.frozen_gamma, self.gamma), (self.frozen_beta, self.beta))
        return [(frozen, learned) for frozen, learned in pairs if learned is not None]

    def compute_output_shape(self, inputs_shape: Shape) -> tuple[int | None, ...]:
        return tuple(inputs_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_tasks": self.num_tasks,
            "frozen_tasks": self.frozen_tasks,
            "shared": self.shared,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
        }


def _rows(frozen: Any, learned: Any, rows: slice) -> Tensor:
    """Some rows of frozen and trainable weights, one behind the other; None where there are no weights."""
    if learned is None:
        return None
    whole = ops.cast(learned.value, "float32")
    if frozen is not None:
        whole = ops.concatenate([ops.cast(frozen.value, "float32"), whole])
    return ops.reshape(whole[rows], (-1,))
