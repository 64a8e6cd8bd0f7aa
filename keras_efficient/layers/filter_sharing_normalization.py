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

    While the tasks still share everything, the normalisations can act as one, too: with `together = True` all tasks,
    run at once, are normalised by the statistics of all and by one scale and offset; `together = False` lets each go on
    from there on its own, and changes nothing where nothing was trained meanwhile.

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
        self._when_joined: list[NDArray[Any]] | None = None

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
        self._joined = self.add_weight(name="joined", shape=(), initializer="zeros", **fixed)

    @property
    def together(self) -> bool:
        """Whether the normalisations of all tasks act as one. Finished tasks keep theirs: False where there are any."""
        return bool(ops.convert_to_numpy(self._joined.value))

    @together.setter
    def together(self, together: bool) -> None:
        if self.shared or self.frozen_tasks or together == self.together:
            return
        self._joined.assign(float(together))
        weights = [weight for weight in (self.gamma, self.beta) if weight is not None]
        first = [ops.convert_to_numpy(weight.value[:1]) for weight in weights]
        known, self._when_joined = self._when_joined, first if together else None
        if not together and (known is None or not all(map(np.array_equal, known, first))):
            for weight in weights:
                weight.assign(ops.repeat(weight.value[:1], self.num_tasks, axis=0))

    def call(self, inputs: Tensor, task: int | None = 0, training: bool | None = None) -> Tensor:
        if task is not None:
            check_task(task, self.num_tasks)
        one = task is not None or self.shared
        number = 0 if self.shared else task
        rows = slice(None) if number is None else slice(number, number + 1)
        x = ops.cast(inputs, "float32")
        if task is None and self.shared:  # [B, ..., T, C]
            x = ops.reshape(x, (*ops.shape(inputs)[:-1], self.num_tasks, self.channels))
        mean, variance = self.moving_mean.value[rows], self.moving_variance.value[rows]
        learns = np.arange(self.num_rows) >= self.frozen_rows
        if training and self.trainable and learns[rows].any():
            axes = list(range(len(x.shape) - 1))
            batch = [ops.reshape(value, (-1, self.channels)) for value in ops.moments(x, axes)]
            if not one:
                batch = self._unless_together(batch)
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
            offset=self._used(self.frozen_beta, self.beta, rows),
            scale=self._used(self.frozen_gamma, self.gamma, rows),
            epsilon=self.epsilon,
        )
        if task is None and self.shared:
            y = ops.reshape(y, ops.shape(inputs))
        return ops.cast(y, self.compute_dtype)

    def _unless_together(self, batch: list[Tensor]) -> list[Tensor]:
        """Means and variances of each task, `[tasks, channels]`, or those over all tasks' inputs."""
        mean, variance = batch
        middle = ops.mean(mean, axis=0, keepdims=True)
        spread = ops.mean(variance + ops.square(mean - middle), axis=0, keepdims=True)
        joined = self._joined.value > 0
        return [ops.where(joined, middle, mean), ops.where(joined, spread, variance)]

    def _used(self, frozen: Any, learned: Any, rows: slice) -> Tensor:
        """Scales or offsets by which the inputs of some tasks, side by side, are normalised."""
        found = _rows(frozen, learned, rows)
        if found is None or self.shared or self.frozen_tasks:
            return found
        first = _rows(None, learned, slice(0, 1))
        return ops.where(self._joined.value > 0, ops.tile(first, found.shape[0] // self.channels), found)

    def _follow(self, moving: Any, found: Tensor, moves: NDArray[Any]) -> None:
        """Moves the statistics of some tasks a step towards those of the batch."""
        moved = moving.value * self.momentum + found * (1.0 - self.momentum)
        moving.assign(ops.where(ops.convert_to_tensor(moves[:, None]), moved, moving.value))

    def get_rows(self) -> list[NDArray[Any]]:
        """Scales, offsets (where there are any), moving means and variances, `[tasks, channels]` each."""
        used = [self._used(frozen, learned, slice(None)) for frozen, learned in self._pairs()]
        found = [ops.convert_to_numpy(ops.reshape(weight, (-1, self.channels))) for weight in used]
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

    def stored_parameters(self) -> int:
        """Scales, offsets and statistics of all tasks."""
        return sum(rows.size for rows in self.get_rows())

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
