"""The Functional models that a `MultiTask` network consists of, made when first asked for."""

from collections.abc import Callable
from typing import Any

import keras

from keras_efficient.models.task_networks import computes_side_by_side, rebuilt

Layer = Any
Tensor = Any


class TaskGraphs:
    """One graph per task, and one for all tasks at once, over the same layers.

    No Keras object, so that Keras does not track the models: their layers are tracked already.

    Args:
        template: Functional backbone, which knows of one task only.
        layer_for: The layer in place of one of the template's.
        tasks: Names of the tasks.
    """

    def __init__(self, template: keras.Model, layer_for: Callable[[Layer], Layer], tasks: tuple[str, ...]) -> None:
        self.template = template
        self.tasks = tasks
        self.heads: list[Layer] = []
        self._layer_for = layer_for
        self._trunks: dict[Any, keras.Model] = {}
        self._networks: dict[int, keras.Model] = {}
        self.side_by_side = computes_side_by_side(self.trunk(0))

    def trunk(self, task: int | None, beside: bool = False) -> keras.Model:
        """The backbone of a task, or of all tasks where None; `beside` for inputs that lie side by side, too."""
        if (task, beside) not in self._trunks:
            inputs = None
            if beside:
                shape = self.template.inputs[0].shape
                inputs = keras.Input((*shape[1:-1], shape[-1] * len(self.tasks)))
            self._trunks[task, beside] = rebuilt(
                self.template,
                self._layer_for,
                lambda layer: {"task": task} if getattr(layer, "by_task", False) else {},
                inputs,
            )
        return self._trunks[task, beside]

    def network(self, task: int) -> keras.Model:
        """Backbone and head of a task."""
        if task not in self._networks:
            trunk = self.trunk(task)
            self._networks[task] = keras.Model(trunk.input, self.heads[task](trunk.output), name=self.tasks[task])
        return self._networks[task]

    def all_tasks(self, x: Tensor, training: bool | None) -> dict[str, Tensor]:
        """Outputs by task of images that all tasks share, `[B, ...]`."""
        if not self.side_by_side:
            return {name: self.network(t)(x, training=training) for t, name in enumerate(self.tasks)}
        return self._from_features(self.trunk(None)(x, training=training))

    def own_images(self, x: Tensor, training: bool | None) -> dict[str, Tensor]:
        """Outputs by task of one image per task, `[B, T, ...]`."""
        if not self.side_by_side:
            return {name: self.network(t)(x[:, t], training=training) for t, name in enumerate(self.tasks)}
        axes = len(x.shape)
        x = keras.ops.transpose(x, (0, *range(2, axes - 1), 1, axes - 1))
        x = keras.ops.reshape(x, (-1, *x.shape[1:-2], x.shape[-2] * x.shape[-1]))
        return self._from_features(self.trunk(None, beside=True)(x, training=training))

    def _from_features(self, features: Tensor) -> dict[str, Tensor]:
        """Outputs by task of features side by side, `[B, ..., T C]`."""
        parts = keras.ops.split(features, len(self.tasks), axis=-1)
        return {name: head(part) for name, head, part in zip(self.tasks, self.heads, parts, strict=True)}
