"""`FilterSharingConv2D`: a convolution whose filters are shared by tasks where that serves them."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_efficient.layers.filter_sharing import FilterSharing, check_count
from keras_efficient.layers.filter_sharing_grouped import grouped_conv
from keras_efficient.ops import context
from keras_efficient.ops.macs import conv_macs, conv_output_length

Tensor = Any
Shape = Sequence[int | None]


@keras.saving.register_keras_serializable(package="keras_efficient")
class FilterSharingConv2D(FilterSharing):
    """2D convolution for several tasks, each of which uses a shared or a private filter per output channel.

    >>> layer = FilterSharingConv2D(32, 3, padding="same", num_tasks=2)
    >>> left, right = layer(x, task=0), layer(x, task=1)

    One task costs what a plain convolution costs. See `FilterSharing` for what is learned and how; most networks are
    made by `models.MultiTask`, which puts this layer in place of every convolution.

    Args:
        filters: Number of output channels.
        kernel_size, strides, padding, dilation_rate, activation, use_bias, kernel_initializer, bias_initializer,
            kernel_regularizer, bias_regularizer, kernel_constraint, bias_constraint: As in `keras.layers.Conv2D`.
        **kwargs: `num_tasks`, `sharing`, `decision_rate`, `frozen_tasks` and `seed` of `FilterSharing`, and the
            arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[B, H, W, C]`, channels last: the features of that task.
        task: Index of the task, by keyword. With None all tasks are computed at once, as one grouped convolution: their
            features lie side by side in the channels, `[B, H, W, T C]`, or are the same for all, `[B, H, W, C]`.
        training: Whether to train: decisions are sampled while searching.

    Returns:
        `[B, H', W', filters]`; `[B, H', W', T filters]` for all tasks.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        dilation_rate: int | Sequence[int] = 1,
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
        check_count("filters", filters, 1)
        if padding not in ("valid", "same"):
            raise ValueError(f"Invalid value for argument `padding`. Expected 'valid' or 'same'. Received: {padding!r}")
        self.filters = filters
        self.kernel_size = pair("kernel_size", kernel_size)
        self.strides = pair("strides", strides)
        self.padding = padding
        self.dilation_rate = pair("dilation_rate", dilation_rate)
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
        return self.filters

    def build(self, inputs_shape: Shape) -> None:
        if len(inputs_shape) != 4 or inputs_shape[-1] is None:
            raise ValueError(
                "Invalid shape for argument `inputs`. Expected [batch, height, width, channels] with known channels. "
                f"Received: {tuple(inputs_shape)}"
            )
        self.compute_output_shape(inputs_shape)
        self.build_sources(
            (*self.kernel_size, int(inputs_shape[-1]), self.filters),
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
        if task is None:  # [T, h, w, C, filters] to [h, w, C, T * filters]
            kernel = ops.reshape(ops.transpose(kernel, (1, 2, 3, 0, 4)), (*kernel.shape[1:4], -1))
            bias = None if bias is None else ops.reshape(bias, (-1,))
        y = grouped_conv(inputs, kernel, self.strides, self.padding, self.dilation_rate)
        if context.is_recording() and None not in y.shape[1:3]:
            pairs = int(kernel.shape[2]), int(kernel.shape[3])
            macs = float(conv_macs(tuple(y.shape[1:3]), self.kernel_size, *pairs))
            context.record(self.name, macs, ops.full((1,), macs))
        return self.activation(y if bias is None else y + bias)

    def compute_output_spec(self, inputs: Any, task: int | None = 0, training: bool | None = None) -> Any:
        shape = self.compute_output_shape(inputs.shape)
        filters = self.filters * (self.num_tasks if task is None else 1)
        return keras.KerasTensor((*shape[:-1], filters), self.compute_dtype)

    def compute_output_shape(self, inputs_shape: Shape) -> tuple[int | None, ...]:
        sizes = [
            size and conv_output_length(size, kernel, stride, dilation, self.padding)
            for size, kernel, stride, dilation in zip(
                inputs_shape[1:3], self.kernel_size, self.strides, self.dilation_rate, strict=True
            )
        ]
        if any(size is not None and size <= 0 for size in sizes):
            raise ValueError(
                "Invalid shape for argument `inputs`. Expected height and width that a kernel of "
                f"{self.kernel_size} fits into. Received: {tuple(inputs_shape)}"
            )
        return (inputs_shape[0], *sizes, self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "dilation_rate": self.dilation_rate,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            **serialized_options(self),
        }


def pair(name: str, value: Any) -> tuple[int, int]:
    """One or two positive integers as two."""
    values = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(values) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected one or two positive integers. Received: {value!r}"
        )
    return values


def serialized_options(layer: Any) -> dict[str, Any]:
    """Initializers, regularizers and constraints of a layer for its configuration."""
    kinds: dict[str, Any] = {
        "initializer": keras.initializers,
        "regularizer": keras.regularizers,
        "constraint": keras.constraints,
    }
    return {
        f"{name}_{kind}": module.serialize(getattr(layer, f"{name}_{kind}"))
        for kind, module in kinds.items()
        for name in ("kernel", "bias")
    }
