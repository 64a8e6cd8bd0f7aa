"""`FilterSharingDense`: a dense layer whose units are shared by tasks where that serves them."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_efficient.layers.filter_sharing import FilterSharing, check_count
from keras_efficient.layers.filter_sharing_conv_2d import serialized_options
from keras_efficient.ops import context
from keras_efficient.ops.macs import dense_macs

Tensor = Any
Shape = Sequence[int | None]


@keras.saving.register_keras_serializable(package="keras_efficient")
class FilterSharingDense(FilterSharing):
    """Dense layer for several tasks, each of which uses a shared or a private column of weights per unit.

    >>> layer = FilterSharingDense(64, activation="relu", num_tasks=2)
    >>> left, right = layer(x, task=0), layer(x, task=1)

    One task costs what a plain dense layer costs; see `FilterSharing`.

    Args:
        units: Number of outputs.
        activation, use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer,
            kernel_constraint, bias_constraint: As in `keras.layers.Dense`.
        **kwargs: `num_tasks`, `sharing`, `decision_rate`, `frozen_tasks` and `seed` of `FilterSharing`, and the
            arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[B, ..., C]`: the features of that task.
        task: Index of the task, by keyword. With None all tasks are computed at once: their features lie side by side,
            `[B, ..., T C]`, or are the same for all, `[B, ..., C]`.
        training: Whether to train: decisions are sampled while searching.

    Returns:
        `[B, ..., units]`; `[B, ..., T units]` for all tasks.
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_count("units", units, 1)
        self.units = units
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)

    @property
    def slots(self) -> int:
        return self.units

    def build(self, inputs_shape: Shape) -> None:
        if len(inputs_shape) < 2 or inputs_shape[-1] is None:
            raise ValueError(
                "Invalid shape for argument `inputs`. Expected [batch, ..., channels] with known channels. "
                f"Received: {tuple(inputs_shape)}"
            )
        self.build_sources(
            (int(inputs_shape[-1]), self.units),
            self.use_bias,
            kernel_initializer=self.kernel_initializer,
            bias_initializer=self.bias_initializer,
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            kernel_constraint=self.kernel_constraint,
            bias_constraint=self.bias_constraint,
        )

    def call(self, inputs: Tensor, task: int | None = 0, training: bool | None = None) -> Tensor:
        kernel, bias = self.task_weights(task, training)
        if context.is_recording() and None not in inputs.shape[1:-1]:
            tasks = self.num_tasks if task is None else 1
            macs = tasks * math.prod(inputs.shape[1:-1]) * float(dense_macs(int(kernel.shape[-2]), self.units))
            context.record(self.name, macs, ops.full((1,), macs))
        if task is None:
            bias = None if bias is None else ops.reshape(bias, (-1,))
            tasks = 1 if inputs.shape[-1] == kernel.shape[1] else self.num_tasks
            x = ops.reshape(inputs, (*ops.shape(inputs)[:-1], tasks, kernel.shape[1]))
            y = ops.einsum("...tc,tcu->...tu" if tasks > 1 else "...sc,tcu->...tu", x, kernel)
            y = ops.reshape(y, (*ops.shape(inputs)[:-1], self.num_tasks * self.units))
        else:
            y = ops.matmul(inputs, kernel)
        return self.activation(y if bias is None else y + bias)

    def compute_output_spec(self, inputs: Any, task: int | None = 0, training: bool | None = None) -> Any:
        units = self.units * (self.num_tasks if task is None else 1)
        return keras.KerasTensor((*inputs.shape[:-1], units), self.compute_dtype)

    def compute_output_shape(self, inputs_shape: Shape) -> tuple[int | None, ...]:
        return (*inputs_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **serialized_options(self),
        }
