"""`MultiTask`: one network per task over filters that the tasks share where that serves them."""

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_efficient.layers.copying import copy_all_weights
from keras_efficient.layers.filter_sharing import FilterSharing
from keras_efficient.layers.filter_sharing_decisions import share_rate
from keras_efficient.layers.filter_sharing_normalization import TaskBatchNormalization
from keras_efficient.models.task_graphs import TaskGraphs
from keras_efficient.models.task_networks import as_functional, check_backbone, plain_layer, rebuilt, shared_layer
from keras_efficient.models.task_training import TaskTraining

Tensor = Any
NORMALIZATIONS = ("task", "shared")


@keras.saving.register_keras_serializable(package="keras_efficient")
class MultiTask(TaskTraining):
    """A backbone for several tasks: every task runs a network of the backbone's size, made of shared and own filters.

        x -> [ convolutions and dense layers, filters chosen per task; batch normalisations per task ] -> head_t

    >>> model = MultiTask(backbone, {"left": 10, "right": 10})
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    >>> model.fit(x, {"left": y_left, "right": y_right}, callbacks=[FilterSharingSchedule(target=0.8)], epochs=30)
    >>> model.export(task="left").predict(x_test)                          # a plain network

    Called, it gives the outputs of all tasks by name, or with `task="left"` those of one. Where each task has images
    of its own, inputs and labels are dictionaries by task, and each task runs on its own images only.

    Args:
        backbone: Functional or built Sequential model with one output. Its weights are where all tasks start from.
            `Conv2D` (without groups) and `Dense` layers become `FilterSharingConv2D` and `FilterSharingDense`,
            `BatchNormalization` becomes `TaskBatchNormalization`; other layers are one for all tasks.
        heads: By task, the number of logits, or a layer or model that reads the backbone's output.
        sharing: `"pool"`, `"source"` or None; see `FilterSharing`.
        normalization: `"task"` for batch normalisations per task, `"shared"` for one for all.
        decision_rate: See `FilterSharing`.
        frozen_tasks: How many tasks, from the first, are finished; set by `with_task`.
        seed: Of sampled decisions and new heads.
        **kwargs: Arguments of `keras.Model`.

    Raises:
        ValueError: If the backbone is no graph with one output, or a head does not fit it.

    In the manner of FiShNet (Dai, Kong and Guo, CIKM 2021); see `FilterSharing`.
    """

    def __init__(
        self,
        backbone: keras.Model,
        heads: Mapping[str, int | keras.layers.Layer],
        *,
        sharing: str | None = None,
        normalization: str = "task",
        decision_rate: float = 10.0,
        frozen_tasks: int = 0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_backbone(backbone)
        if not isinstance(heads, Mapping) or not heads or not all(isinstance(task, str) and task for task in heads):
            raise ValueError(f"Invalid value for argument `heads`. Expected heads by name of task. Received: {heads!r}")
        if not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", task) for task in heads):
            raise ValueError(
                "Invalid value for argument `heads`. Expected names of letters, digits, `_`, `.` and `-`. "
                f"Received: {list(heads)}"
            )
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"Invalid value for argument `normalization`. Expected one of {NORMALIZATIONS}. "
                f"Received: {normalization!r}"
            )
        self.tasks = tuple(heads)
        self.sharing = sharing
        self.normalization = normalization
        self.decision_rate = decision_rate
        self.frozen_tasks = frozen_tasks
        self.seed = seed
        options = {
            "num_tasks": len(self.tasks),
            "sharing": sharing,
            "decision_rate": decision_rate,
            "frozen_tasks": frozen_tasks,
            "seed": seed,
        }
        made: dict[str, keras.layers.Layer] = {}
        originals: dict[str, keras.layers.Layer] = {}

        def layer_for(layer: keras.layers.Layer) -> keras.layers.Layer:
            if originals.setdefault(layer.name, layer) is not layer:
                raise ValueError(
                    "Invalid value for argument `backbone`. Expected a different name for every layer. "
                    f"Received: two layers `{layer.name}`"
                )
            if layer.name not in made:
                own = {**options, "seed": None if seed is None else seed + len(made)}  # samples of its own
                made[layer.name] = shared_layer(layer, normalization, own)
            return made[layer.name]

        self._graphs = TaskGraphs(as_functional(backbone), layer_for, self.tasks)
        self.body = list(made.values())
        self.heads = [self._head(task, head, self._graphs.trunk(0)) for task, head in heads.items()]
        for head in self.heads[:frozen_tasks]:
            head.trainable = False
        self._graphs.heads = list(self.heads)
        self.add_sharing_weights()
        self.built = True

    def _head(self, task: str, head: Any, trunk: keras.Model) -> keras.layers.Layer:
        features = trunk.output
        if isinstance(head, bool) or not isinstance(head, (int, keras.layers.Layer)) or head == 0:
            raise ValueError(
                f"Invalid value for argument `heads`. Expected a number of logits or a layer for task {task!r}. "
                f"Received: {head!r}"
            )
        if isinstance(head, int):
            if len(features.shape) != 2 or head < 0:
                raise ValueError(
                    f"Invalid value for argument `heads`. Expected a layer for task {task!r}, or a positive number of "
                    f"logits and a backbone that gives [batch, features]. Received: {head} for features of shape "
                    f"{tuple(features.shape)}"
                )
            initializer = keras.initializers.GlorotUniform(seed=self.seed)
            made = keras.layers.Dense(head, name=f"head_{task}", kernel_initializer=initializer)
            made.build(features.shape)
            return made
        try:
            if not head.built:
                head.build(features.shape)
            head(features)
        except Exception as error:
            raise ValueError(
                f"Invalid value for argument `heads`. Expected a head of task {task!r} that reads features of shape "
                f"{tuple(features.shape)}. Received: {head.name!r}, which says: {str(error).strip().splitlines()[0]}"
            ) from error
        return head

    def build(self, input_shape: Any = None) -> None:
        self.built = True

    @property
    def inputs(self) -> list[Any]:
        """The symbolic inputs of the backbone."""
        return list(self._graphs.template.inputs)

    @property
    def input(self) -> Any:
        """The symbolic inputs of the backbone in the structure that it takes."""
        return self._graphs.template.input

    @property
    def sharing_layers(self) -> list[FilterSharing]:  # type: ignore[override]
        """The layers that tasks share filters of, in the order of the backbone."""
        return [layer for layer in self.body if isinstance(layer, FilterSharing)]

    def task_index(self, task: str) -> int:
        """The position of a task.

        Raises:
            ValueError: If there is no such task.
        """
        if task not in self.tasks:
            raise ValueError(
                f"Invalid value for argument `task`. Expected one of {list(self.tasks)}. Received: {task!r}"
            )
        return self.tasks.index(task)

    def network(self, task: str) -> keras.Model:
        """The Functional model of one task over the layers here; it changes as they are trained."""
        return self._graphs.network(self.task_index(task))

    def head_units(self, task: str) -> int | None:
        head = self.heads[self.task_index(task)]
        return head.compute_output_shape(self._graphs.trunk(0).output.shape)[-1]

    def call(self, inputs: Tensor, training: bool | None = None, task: str | None = None) -> Any:
        """Outputs by task.

        Args:
            inputs: The backbone's, `[B, ...]`; one image per task, `[B, T, ...]`; or a dictionary of inputs by task.
            training: As in Keras.
            task: Name of the only task to run.

        Returns:
            A dictionary by task; the output alone where `task` is given.
        """
        if task is not None:
            return self.network(task)(inputs, training=training)
        if isinstance(inputs, Mapping) and not set(inputs) <= {tensor.name for tensor in self.inputs}:
            self.check_tasks("inputs", inputs)
            return {name: self.network(name)(x, training=training) for name, x in inputs.items()}
        one_tensor = len(self.inputs) == 1 and hasattr(inputs, "shape")
        if one_tensor and len(inputs.shape) == len(self.inputs[0].shape) + 1:
            if inputs.shape[1] != len(self.tasks):
                raise ValueError(
                    f"Invalid value for argument `inputs`. Expected one image for each of the {len(self.tasks)} tasks, "
                    f"[batch, {len(self.tasks)}, ...]. Received: shape {tuple(inputs.shape)}"
                )
            return self._graphs.own_images(inputs, training)
        return self._graphs.all_tasks(inputs, training)

    def compute_output_shape(self, input_shape: Any) -> dict[str, Any]:
        return {task: self.network(task).compute_output_shape(input_shape) for task in self.tasks}

    def set_phase(self, phase: str) -> None:
        """Puts every layer that shares filters into a phase, see `FilterSharing`.

        In the phase `"shared"` batch normalisations act as one; in the others each task's goes on from there.
        """
        for layer in self.sharing_layers:
            layer.phase = phase
        self.normalize_together(phase == "shared")

    def normalize_together(self, together: bool) -> None:
        """Whether the batch normalisations of all tasks act as one; see `TaskBatchNormalization`."""
        for layer in self.body:
            if isinstance(layer, TaskBatchNormalization):
                layer.together = together

    def share_all(self) -> None:
        """Hard sharing: all tasks use the same filters."""
        for layer in self.sharing_layers:
            layer.share_all()

    def share_nothing(self) -> None:
        """Independent networks: each task has filters of its own."""
        for layer in self.sharing_layers:
            layer.share_nothing()

    def sources(self) -> dict[str, NDArray[np.int64]]:
        """By layer `[tasks, slots]`, which source fills each slot; see `FilterSharing.sources`."""
        return {layer.name: layer.sources() for layer in self.sharing_layers}

    def share_rate(self) -> float:
        """Share of the parameters of all but one network that sharing saves, as decided now: 1 for hard sharing."""
        if len(self.tasks) == 1:
            return 1.0
        single = sum(layer.parameters_per_slot * layer.slots for layer in self.sharing_layers)
        if not single:
            return 1.0
        stored = sum(layer.stored_parameters() for layer in self.sharing_layers)
        return float(share_rate(stored / single, len(self.tasks)))

    def stored_parameters(self) -> int:
        """Weights that a device must hold for all tasks: filters in use, normalisations, other layers, heads."""
        by_task = (FilterSharing, TaskBatchNormalization)
        others = [layer for layer in self.body if not isinstance(layer, by_task)] + list(self.heads)
        return sum(layer.stored_parameters() for layer in self.body if isinstance(layer, by_task)) + sum(
            int(np.prod(weight.shape)) for layer in others for weight in layer.weights
        )

    def export(self, filepath: Any = None, *args: Any, task: str | None = None, **kwargs: Any) -> Any:
        """One task as a plain Keras model with its own copy of the weights.

        >>> plain = model.export(task="left")

        With a `filepath` that model is exported as `keras.Model.export` does it; `tflite_export.export` writes all
        tasks into one file and stores shared filters once.

        Raises:
            ValueError: If there is no such task.
        """
        if task is None:
            raise ValueError(
                f"Invalid value for argument `task`. Expected one of {list(self.tasks)}; `tflite_export.export` writes "
                "all of them into one file. Received: None"
            )
        plain = self._plain(task)
        return plain if filepath is None else plain.export(filepath, *args, **kwargs)

    def _plain(self, task: str) -> keras.Model:
        index = self.task_index(task)
        made = {layer.name: layer for layer in self.body}
        copies: dict[str, keras.layers.Layer] = {}

        def layer_for(layer: keras.layers.Layer) -> keras.layers.Layer:
            if layer.name not in copies:
                copies[layer.name] = plain_layer(layer, made[layer.name], index)
            return copies[layer.name]

        trunk = rebuilt(self._graphs.template, layer_for, lambda layer: {})
        head = self.heads[index]
        copy = type(head).from_config(head.get_config())
        outputs = copy(trunk.output)
        copy_all_weights(head, copy)
        copy.trainable = True
        return keras.Model(trunk.input, outputs, name=task)

    def with_task(self, task: str, head: int | keras.layers.Layer) -> "MultiTask":
        """A network with one more task, in which everything that the others use is frozen.

        The new task starts from the first source of every slot, and learns decisions, filters, batch normalisations and
        head of its own; the other tasks' outputs stay as they are, bit by bit.

        Args:
            task: Its name.
            head: Number of logits, or a layer.

        Raises:
            ValueError: If there is a task of that name, or the head does not fit.
        """
        if task in self.tasks:
            raise ValueError(
                f"Invalid value for argument `task`. Expected a new name beside {list(self.tasks)}. Received: {task!r}"
            )
        config = self.get_config()
        config["heads"] = {
            **config["heads"],
            task: head if isinstance(head, int) else keras.saving.serialize_keras_object(head),
        }
        config["frozen_tasks"] = len(self.tasks)
        config["sharing"] = self.sharing_layers[0].sharing if self.sharing_layers else self.sharing
        made = MultiTask.from_config(config)
        for old, new in zip(self.body, made.body, strict=True):
            _carry_over(old, new)
        given = [head] if isinstance(head, keras.layers.Layer) and head.built else []
        for old, new in zip([*self.heads, *given], made.heads, strict=False):
            copy_all_weights(old, new)
        return made

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": serialize(self.dtype_policy),
            "backbone": serialize(self._graphs.template),
            "heads": {task: serialize(head) for task, head in zip(self.tasks, self.heads, strict=True)},
            "sharing": self.sharing,
            "normalization": self.normalization,
            "decision_rate": self.decision_rate,
            "frozen_tasks": self.frozen_tasks,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "MultiTask":
        def restored(value: Any) -> Any:
            return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)

        config = dict(config)
        config["backbone"] = restored(config["backbone"])
        config["dtype"] = restored(config.get("dtype"))
        config["heads"] = {
            task: head if isinstance(head, int) else restored(head) for task, head in config["heads"].items()
        }
        return cls(**config)


def _carry_over(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """The weights of a layer for `T` tasks to one for `T + 1`; what the new task begins with is the first source's."""
    if isinstance(old, FilterSharing):
        assert isinstance(new, FilterSharing)
        weights = [None if known is None else _extended(known, new.num_sources) for known in old.get_sources()]
        assert weights[0] is not None
        new.assign_sources(weights[0], weights[1])
        sources = old.sources()
        new.set_sources(np.concatenate([sources, np.zeros((1, old.slots), "int64")]))
        new.logits.assign(ops.zeros_like(new.logits.value))
        new.phase = "shared"
    elif isinstance(old, TaskBatchNormalization):
        assert isinstance(new, TaskBatchNormalization)
        new.set_rows([_extended(rows, new.num_rows) for rows in old.get_rows()])
    else:
        copy_all_weights(old, new)


def _extended(rows: NDArray[Any], count: int) -> NDArray[Any]:
    """Rows followed by copies of the first, up to a number of them."""
    return np.concatenate([rows, np.repeat(rows[:1], count - len(rows), axis=0)])
