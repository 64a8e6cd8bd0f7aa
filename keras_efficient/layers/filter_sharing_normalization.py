"""`TaskBatchNormalization`: one batch normalisation per task."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_efficient.layers.filter_sharing import check_count, check_task

Tensor = Any
Shape = Sequence[int | None]


@keras.saving.register_keras_serializable(package="keras_efficient")
class TaskBatchNormalization(keras.layers.Layer):
    """Batch normalisation with scale, offset and statistics of each task's own.

    A filter that tasks share still sees other inputs in each of them, so its outputs are distributed differently.

    >>> layer = TaskBatchNormalization(num_tasks=2)
    >>> y = layer(x, task=1, training=True)                    # statistics of task 1 alone move

    Args:
        num_tasks: Number of tasks.
        frozen_tasks: The first so many are finished: theirs run in inference mode and are not trainable.
        options: Arguments of `keras.layers.BatchNormalization`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[B, ..., C]`.
        task: Index of the task, by keyword.
        training: Whether to use and follow the batch's statistics.
    """

    def __init__(
        self, num_tasks: int = 2, frozen_tasks: int = 0, options: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_count("num_tasks", num_tasks, 1)
        check_count("frozen_tasks", frozen_tasks, 0)
        self.num_tasks = num_tasks
        self.frozen_tasks = frozen_tasks
        self.options = dict(options or {})
        self.norms = [
            keras.layers.BatchNormalization(
                **{
                    **self.options,
                    "name": f"norm_{task}",
                    "trainable": task >= frozen_tasks,
                    "dtype": self.dtype_policy,
                }
            )
            for task in range(num_tasks)
        ]

    def build(self, inputs_shape: Shape) -> None:
        for norm in self.norms:
            norm.build(inputs_shape)

    def call(self, inputs: Tensor, task: int = 0, training: bool | None = None) -> Tensor:
        check_task(task, self.num_tasks)
        return self.norms[task](inputs, training=training)

    def compute_output_shape(self, inputs_shape: Shape) -> tuple[int | None, ...]:
        return tuple(inputs_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_tasks": self.num_tasks,
            "frozen_tasks": self.frozen_tasks,
            "options": self.options,
        }
