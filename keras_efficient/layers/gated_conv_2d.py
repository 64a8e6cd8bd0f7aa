"""`GatedConv2D`: a convolution that computes only the channels which the input at hand needs."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_efficient.layers.dynamic import DynamicLayer
from keras_efficient.layers.gates import straight_through_mask, straight_through_open
from keras_efficient.layers.open_channels import conv_open_channels
from keras_efficient.ops import context, gated_conv_2d
from keras_efficient.ops.gated_conv_2d import ACTIVATIONS, PADDINGS, GatedConv2DAttributes, activate
from keras_efficient.ops.macs import conv_macs, conv_output_length

Tensor = Any
Shape = Sequence[int | None]


@keras.saving.register_keras_serializable(package="keras_efficient")
class GatedConv2D(DynamicLayer):
    """2D convolution whose output channels open and close per input (the C-Net of LC-Net).

        g = relu1(W_g mean_hw(x) + b_g)                       # [B, filters], values up to `gate_threshold` become 0
        y = g * act(batch_norm(conv(x, W) + b))

    A channel whose gate is 0 is zero and need not be computed; the next `GatedConv2D` need not read it either:

    >>> h, g = GatedConv2D(32, 3, padding="same", activation="relu", return_gate=True)(x)
    >>> y = GatedConv2D(16, 3, padding="same", gate=None)(h, input_gate=g)

    Training computes everything, multiplies by the gates, and lets gradients through. Inference runs the op
    `ke.gated_conv_2d` with batch normalisation folded into its kernel; inside `ops.skipping()` (and on a device with
    the delegate) the closed channels are not computed. All three give the same numbers, batch statistics aside. With
    neither `gate` nor `input_gate` it is a plain convolution, in a file too.

    Args:
        filters: Number of output channels.
        kernel_size: One integer or two.
        strides: One integer or two.
        padding: `"valid"` or `"same"`.
        dilation_rate: One integer or two; strides must be 1 where it is not 1.
        activation: None, `"linear"`, `"relu"` or `"relu6"`; the gates scale after it.
        use_bias: Whether the convolution has a bias.
        gate: `"relu1"`, `"binary_concrete"`, or None for a convolution that only listens to `input_gate`.
        return_gate: Whether to return `(y, g)` instead of `y`.
        batch_normalization: Whether to normalise between convolution and activation.
        momentum: Of the batch normalisation's moving statistics.
        epsilon: Of the batch normalisation.
        kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer, kernel_constraint, bias_constraint:
            As in `keras.layers.Conv2D`.
        **kwargs: `gate_threshold`, `gate_leak`, `gate_kernel_initializer` and `gate_bias_initializer` of
            `DynamicLayer`, and the arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[B, H, W, C]`, channels last.
        input_gate: `[B, C]`, 0 where a channel of `inputs` is shut (and zero); default all open.
        gate_inputs: `[B, ..., C']`, what the gate net reads, such as the input of the block; default `inputs`.
        training: Whether to train.

    Returns:
        `[B, H', W', filters]`, with `return_gate=True` a tuple of it and the gates `[B, filters]`.

    Reference: Xia et al., "Fully Dynamic Inference with Deep Neural Networks", IEEE TETC 2022.
    """

    parts = ("gate", "weights", "norm")
    calls_op = True  # whatever layers it holds, its tensors are those of one op

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        dilation_rate: int | Sequence[int] = 1,
        activation: str | None = None,
        use_bias: bool = True,
        gate: str | None = "relu1",
        return_gate: bool = False,
        batch_normalization: bool = False,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(gate=gate, **kwargs)
        if isinstance(filters, bool) or not isinstance(filters, int) or filters < 1:
            raise ValueError(
                f"Invalid value for argument `filters`. Expected a positive integer. Received: {filters!r}"
            )
        self.filters = filters
        self.kernel_size = _pair("kernel_size", kernel_size)
        self.strides = _pair("strides", strides)
        self.dilation_rate = _pair("dilation_rate", dilation_rate)
        if padding not in PADDINGS:
            raise ValueError(f"Invalid value for argument `padding`. Expected 'valid' or 'same'. Received: {padding!r}")
        if (activation or "linear") not in ACTIVATIONS:
            raise ValueError(
                f"Invalid value for argument `activation`. Expected None or one of {ACTIVATIONS}. "
                f"Received: {activation!r}"
            )
        self.padding = padding
        self.activation = activation or "linear"
        self.use_bias = use_bias
        self.return_gate = return_gate
        self.batch_normalization = batch_normalization
        self.momentum = momentum
        self.epsilon = epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)
        self.attributes = GatedConv2DAttributes(
            stride_h=self.strides[0],
            stride_w=self.strides[1],
            dilation_h=self.dilation_rate[0],
            dilation_w=self.dilation_rate[1],
            padding=padding,
            activation=self.activation,
        )
        self.norm: Any = None
        if batch_normalization:
            self.norm = keras.layers.BatchNormalization(
                momentum=momentum, epsilon=epsilon, dtype=self.dtype_policy, name="norm"
            )

    def build(
        self, inputs_shape: Shape, input_gate_shape: Shape | None = None, gate_inputs_shape: Shape | None = None
    ) -> None:
        if len(inputs_shape) != 4 or inputs_shape[-1] is None:
            raise ValueError(
                "Invalid shape for argument `inputs`. Expected [batch, height, width, channels] with known channels. "
                f"Received: {tuple(inputs_shape)}"
            )
        channels = int(inputs_shape[-1])
        if input_gate_shape is not None and tuple(input_gate_shape)[1:] != (channels,):
            raise ValueError(
                f"Invalid shape for argument `input_gate`. Expected [batch, {channels}], one gate per input channel. "
                f"Received: {tuple(input_gate_shape)}"
            )
        self._reads_gate = input_gate_shape is not None
        self.kernel = self.add_weight(
            name="kernel",
            shape=self.kernel_shape(channels),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias: Any = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.filters,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        if self.gate is not None:
            read = int((gate_inputs_shape or inputs_shape)[-1] or 0)
            self.build_gate(read, self.filters)
        _, height, width, _ = self._conv_shape(inputs_shape)
        if self.norm is not None:
            self.norm.build((None, height, width, self.filters))
        self._macs_per_pair = float(conv_macs((height or 0, width or 0), self.kernel_size, 1, 1))
        self.build_budget(countable=height is not None and width is not None)

    def variables_of(self, part: str) -> list[Any]:
        if part == "weights":
            return [variable for variable in (self.kernel, self.bias) if variable is not None]
        return super().variables_of(part)

    def keep_frozen(self) -> None:
        super().keep_frozen()
        if "norm" in getattr(self, "frozen", ()) and self.norm is not None:
            self.norm.trainable = False  # it then uses its statistics in training, too

    def kernel_shape(self, channels: int) -> tuple[int, ...]:
        """Of the kernel that reads so many channels."""
        return (*self.kernel_size, channels, self.filters)

    @property
    def takes_scale(self) -> bool:
        """Whether it multiplies its output by `context.scale_of(self)`, with the gates that it has anyway."""
        return self.gate is not None or self._reads_gate

    @property
    def least_macs(self) -> float:
        return 0.0 if self.gate is None and self._reads_gate else super().least_macs

    def macs_when_open(self) -> float:
        return self._macs_per_pair * self.kernel.shape[2] * self.filters

    def call(
        self, inputs: Tensor, input_gate: Tensor = None, gate_inputs: Tensor = None, training: bool | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        shown = inputs if gate_inputs is None else gate_inputs
        if self.gate is None:
            gate = ops.ones((ops.shape(inputs)[0], self.filters), inputs.dtype)
            opened = ops.cast(gate, "float32")
        else:
            gate, opened = self.gate_values(shown, training)
        y = self._soft(inputs, input_gate, gate, opened) if training else self._hard(inputs, input_gate, gate)
        return (y, gate) if self.return_gate else y

    def _soft(self, x: Tensor, input_gate: Tensor, gate: Tensor, opened: Tensor) -> Tensor:
        """Training: everything is computed, gradients reach closed gates too."""
        open_in: Any = float(x.shape[-1])
        if input_gate is not None:
            open_in = ops.sum(straight_through_open(input_gate, self.budget_coefficient), axis=-1)
            is_open = ops.cast(ops.not_equal(input_gate, 0), x.dtype)
            x = straight_through_mask(x, ops.expand_dims(is_open, (1, 2)))
        y = self.linear(x, self.kernel)
        if self.bias is not None:
            y = y + self.bias
        if self.norm is not None:
            y = self.norm(y, training=True)
        if self._countable:
            macs = self._macs_per_pair * open_in * ops.sum(opened, axis=-1)
            context.record(gated_conv_2d.name, self.macs_when_open(), ops.stop_gradient(macs), by_op=True)
            self.spend(macs)
        return activate(y, self.activation) * ops.expand_dims(gate, (1, 2))

    def _hard(self, x: Tensor, input_gate: Tensor, gate: Tensor) -> Tensor:
        """Inference: the op, or in eager mode inside `ops.skipping()` its open channels alone."""
        kernel, bias = (ops.cast(weight, x.dtype) for weight in self.folded_weights())
        if self.gate is None and input_gate is None:
            return self._without_gates(x, kernel, bias)
        scale = context.scale_of(self)
        if scale is not None:
            gate = gate * ops.cast(scale, gate.dtype)
        if input_gate is None:
            input_gate = ops.ones((ops.shape(x)[0], x.shape[-1]), x.dtype)
        tensors = (x, ops.cast(input_gate, x.dtype), gate, kernel, bias)
        attributes = vars(self.attributes)
        if context.is_skipping():
            y = conv_open_channels(*tensors, **attributes)
            if y is not None:
                return y
        return gated_conv_2d(*tensors, **attributes)

    def _without_gates(self, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        """Inference where nothing can be shut: no op of this package, so that a file holds a builtin convolution."""
        if self._countable:
            macs = self.macs_when_open()
            context.record(self.name, macs, ops.ones((1,)) * macs)
        return activate(self.linear(x, kernel) + bias, self.activation)

    def linear(self, x: Tensor, kernel: Tensor) -> Tensor:
        """The convolution itself, all channels of `x` `[B, H, W, C]`."""
        return ops.conv(x, kernel, self.strides, self.padding, "channels_last", self.dilation_rate)

    def folded_weights(self) -> tuple[Tensor, Tensor]:
        """Kernel, shaped as it is trained, and bias `[filters]` in float32 with the batch normalisation inside."""
        kernel = ops.cast(self.kernel, "float32")
        bias = ops.zeros((self.filters,)) if self.bias is None else ops.cast(self.bias, "float32")
        if self.norm is None:
            return kernel, bias
        variance = ops.cast(self.norm.moving_variance, "float32")
        scale = ops.cast(self.norm.gamma, "float32") * ops.rsqrt(variance + self.epsilon)
        mean = ops.cast(self.norm.moving_mean, "float32")
        scale_of_kernel = ops.reshape(scale, (-1, self.kernel.shape[-1]))
        return kernel * scale_of_kernel, (bias - mean) * scale + ops.cast(self.norm.beta, "float32")

    def compute_output_shape(
        self, inputs_shape: Shape, input_gate_shape: Shape | None = None, gate_inputs_shape: Shape | None = None
    ) -> Any:
        shape = self._conv_shape(inputs_shape)
        return (shape, (shape[0], self.filters)) if self.return_gate else shape

    def _conv_shape(self, inputs_shape: Shape) -> tuple[int | None, ...]:
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
            "activation": self.activation,
            "use_bias": self.use_bias,
            "return_gate": self.return_gate,
            "batch_normalization": self.batch_normalization,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
        }


def _pair(name: str, value: Any) -> tuple[int, int]:
    values = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, Sequence) else ()
    if len(values) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected one or two positive integers. Received: {value!r}"
        )
    return values
