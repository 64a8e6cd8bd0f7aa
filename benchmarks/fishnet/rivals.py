"""The other ways to share between tasks, trained by the same `fit`: hard sharing, cross-stitch, layer decisions."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks.fishnet.backbone import backbone
from keras_efficient import cost
from keras_efficient.layers.filter_sharing_decisions import sampled_share, share_probability
from keras_efficient.models import MultiTask
from keras_efficient.models.task_training import TaskTraining
from keras_efficient.ops import context

Tensor = Any
OWN = 0.9  # of a cross-stitch unit's output, what it takes from its own column in the beginning


class _Rival(TaskTraining):
    """A network of several tasks, on images that they share `[B, ...]` or on one image per task `[B, T, ...]`."""

    def __init__(self, input_shape: tuple[int, ...], heads: Mapping[str, int], seed: int) -> None:
        super().__init__()
        self.tasks = tuple(heads)
        self.rank = len(input_shape) + 1
        self.sharing_layers = []
        self.heads = [
            keras.layers.Dense(units, kernel_initializer=keras.initializers.GlorotUniform(seed=seed))
            for units in heads.values()
        ]

    def head_units(self, task: str) -> int:
        return int(self.heads[self.tasks.index(task)].units)

    def call(self, inputs: Tensor, training: bool | None = None) -> dict[str, Tensor]:
        own = len(inputs.shape) > self.rank
        x = ops.reshape(inputs, (-1, *inputs.shape[2:])) if own else inputs
        features = self.features(x, training, own)
        return {task: head(f) for task, head, f in zip(self.tasks, self.heads, features, strict=True)}

    def features(self, x: Tensor, training: bool | None, own: bool) -> list[Tensor]:
        """`[B, C]` of every task; with `own`, `x` are the images of all tasks, `[B T, ...]`, task by task in a row."""
        raise NotImplementedError

    def stored_parameters(self) -> int:
        """Weights that a device must hold for all tasks."""
        return int(sum(np.prod(weight.shape) for weight in self.weights))


class HardSharing(_Rival):
    """One trunk for all tasks, batch normalisations too."""

    def __init__(self, input_shape: tuple[int, ...], heads: Mapping[str, int], width: int, seed: int) -> None:
        super().__init__(input_shape, heads, seed)
        self.trunk = backbone(input_shape, width, seed)
        self.macs = cost.profile(self.trunk).macs

    def features(self, x: Tensor, training: bool | None, own: bool) -> list[Tensor]:
        found = self.trunk(x, training=training)
        if not own:
            return [found] * len(self.tasks)
        found = ops.reshape(found, (-1, len(self.tasks), found.shape[-1]))
        return [found[:, t] for t in range(len(self.tasks))]


class CrossStitch(_Rival):
    """A column per task; behind each stage every channel becomes a learned mixture over the columns.

        x_t <- sum_s alpha[t, s, channel] x_s

    The columns lie side by side in the channels of grouped convolutions.

    Reference: Misra et al., "Cross-stitch Networks for Multi-task Learning", CVPR 2016.
    """

    def __init__(self, input_shape: tuple[int, ...], heads: Mapping[str, int], width: int, seed: int) -> None:
        super().__init__(input_shape, heads, seed)
        count = len(heads)
        self.columns = backbone(input_shape, width, seed, columns=count, between=lambda: Stitch(count))
        self.macs = cost.profile(self.columns).macs

    def features(self, x: Tensor, training: bool | None, own: bool) -> list[Tensor]:
        count = len(self.tasks)
        found = self.columns(x, training=training)
        if not own:
            return list(ops.split(found, count, axis=-1))
        found = ops.reshape(found, (-1, count, count, found.shape[-1] // count))
        return [found[:, t, t] for t in range(count)]


class Stitch(keras.layers.Layer):
    """Mixes columns side by side in the channels, channel by channel."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns

    def build(self, inputs_shape: Any) -> None:
        count = self.columns
        first = np.full((count, count), (1 - OWN) / (count - 1)) + np.eye(count) * (OWN - (1 - OWN) / (count - 1))
        channels = inputs_shape[-1] // count
        self.alpha = self.add_weight(
            shape=(count, count, channels),
            initializer=lambda shape, dtype=None: ops.broadcast_to(ops.array(first, dtype)[:, :, None], shape),
        )

    def call(self, inputs: Tensor) -> Tensor:
        context.record(self.name, float(np.prod(inputs.shape[1:])) * self.columns, ops.zeros((1,)))
        apart = ops.reshape(inputs, (-1, *inputs.shape[1:-1], self.columns, self.alpha.shape[-1]))
        mixed = ops.einsum("bhwsc,tsc->bhwtc", apart, self.alpha.value)
        return ops.reshape(mixed, (-1, *inputs.shape[1:]))

    def compute_output_shape(self, inputs_shape: Any) -> Any:
        return inputs_shape


@keras.saving.register_keras_serializable(package="benchmarks")
class SelectOrSkip(keras.layers.Layer):
    """Whether a task runs a residual branch: straight-through decisions, one per task.

    Training multiplies by sampled decisions, inference by those that are likelier; in the phase `"shared"` every
    branch runs. Adds the sparsity and sharing losses of AdaShare for this block.

    Reference: Sun et al., "AdaShare: Learning What To Share For Efficient Deep Multi-Task Learning", NeurIPS 2020.
    """

    by_task = True

    def __init__(self, num_tasks: int, regularization: float = 0.05, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_tasks, self.regularization, self.seed = num_tasks, regularization, seed
        self._generator = keras.random.SeedGenerator(seed)

    def build(self, inputs_shape: Any) -> None:
        self.logits = self.add_weight(name="logits", shape=(self.num_tasks,), initializer="zeros")
        self.phase = self.add_weight(name="phase", shape=(), initializer="zeros", trainable=False)

    def call(self, inputs: Tensor, task: int | None = 0, training: bool | None = None) -> Tensor:
        logits = 10.0 * ops.convert_to_tensor(self.logits.value)
        run = ops.cast(ops.stop_gradient(logits) >= 0, "float32")
        if training:
            noise = keras.random.uniform((self.num_tasks,), 1e-6, 1 - 1e-6, seed=self._generator)
            searching = ops.equal(ops.convert_to_tensor(self.phase.value), 1.0)
            run = ops.where(searching, sampled_share(logits, noise, 0.66), run)
            likely = share_probability(logits)
            apart = ops.mean(ops.abs(likely - ops.mean(likely)))
            self.add_loss(ops.cast(searching, "float32") * self.regularization * (ops.mean(likely) + apart))
        run = ops.where(ops.equal(ops.convert_to_tensor(self.phase.value), 0.0), ops.ones_like(run), run)
        return inputs * (ops.repeat(run, inputs.shape[-1] // self.num_tasks) if task is None else run[task])

    def runs(self, task: int) -> bool:
        """Whether the task runs the branch."""
        return float(ops.convert_to_numpy(self.phase.value)) == 0 or bool(ops.convert_to_numpy(self.logits)[task] >= 0)

    def compute_output_shape(self, inputs_shape: Any) -> Any:
        return inputs_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_tasks": self.num_tasks,
            "regularization": self.regularization,
            "seed": self.seed,
        }


class NormalizedApart(keras.callbacks.Callback):
    """Lets the batch normalisations of the tasks act as one until the end of the warm-up."""

    def __init__(self, warmup: float) -> None:
        super().__init__()
        self.warmup = warmup

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.normalize_together(epoch < round(self.warmup * self.params["epochs"]))


class LayerDecisions(NormalizedApart):
    """Warm-up with everything running, search, then fixed decisions: the phases of `FilterSharingSchedule`."""

    def __init__(self, warmup: float, search: float) -> None:
        super().__init__(warmup)
        self.search = search

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        epochs = self.params["epochs"]
        first, last = round(self.warmup * epochs), round((self.warmup + self.search) * epochs)
        phase = 0.0 if epoch < first else 1.0 if epoch < last else 2.0
        for layer in gates(self.model):
            layer.phase.assign(phase)


def gates(model: MultiTask) -> list[SelectOrSkip]:
    """The gates of a network, block by block."""
    return [layer for layer in model.body if isinstance(layer, SelectOrSkip)]


def layer_decisions(input_shape: tuple[int, ...], heads: Mapping[str, int], width: int, seed: int) -> MultiTask:
    """Hard sharing in which each task runs or skips each residual branch."""

    def gate(k: int) -> SelectOrSkip:
        return SelectOrSkip(len(heads), seed=seed, name=f"gate_{k}")

    model = MultiTask(backbone(input_shape, width, seed, gate=gate), heads, sharing="pool", seed=seed)
    model.share_all()
    return model
