"""`GatedDepthwiseConv2D`: a depthwise convolution that computes only the channels which the input at hand needs."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_efficient.layers.gated_conv_2d import GatedConv2D
from keras_efficient.layers.gates import straight_through_mask, straight_through_open
from keras_efficient.layers.open_channels import depthwise_open_channels
from keras_efficient.ops import context, gated_depthwise_conv_2d
from keras_efficient.ops.gated_conv_2d import activate
from keras_efficient.ops.gated_depthwise_conv_2d import GatedDepthwiseConv2DAttributes

Tensor = Any
Shape = Sequence[int | None]


@keras.saving.register_keras_serializable(package="keras_efficient")
class GatedDepthwiseConv2D(GatedConv2D):
    """2D depthwise convolution whose channels open and close per input.

        g = relu1(W_g mean_hw(x) + b_g) * (input_gate != 0)     # [B, C M]
        y = g * act(batch_norm(depthwise_conv(x, W) + b))

    Between two 1 x 1 convolutions it needs no gate net of its own: a channel that the first one shuts is shut here too,
    offset of the batch normalisation included, and the second one does not read it.

    >>> h, g = GatedConv2D(96, 1, activation="relu6", return_gate=True)(x)
    >>> h, g = GatedDepthwiseConv2D(3, padding="same", gate=None, return_gate=True)(h, input_gate=g)
    >>> y = GatedConv2D(16, 1, gate=None)(h, input_gate=g)

    Training, batches and `ops.skipping()` are as in `GatedConv2D`; the op is `ke.gated_depthwise_conv_2d`.

    Args:
        kernel_size: One integer or two.
        strides: One integer, or the same one twice.
        padding: `"valid"` or `"same"`.
        depth_multiplier: `M`, output channels per input channel.
        **kwargs: The other arguments of `GatedConv2D`: `dilation_rate`, `activation`, `use_bias`, `gate`,
            `return_gate`, `batch_normalization` and so on.

    Call arguments:
        inputs: `[B, H, W, C]`, channels last.
        input_gate: `[B, C]`, 0 where a channel of `inputs` is shut, and so what is made of it; default all open. Its
            values do not scale.
        gate_inputs: `[B, ..., C']`, what the gate net reads; default `inputs`.
        training: Whether to train.

    Returns:
        `[B, H', W', C M]`, with `return_gate=True` a tuple of it and the gates `[B, C M]`, the input's gate in them.

    Reference: Xia et al., "Fully Dynamic Inference with Deep Neural Networks", IEEE TETC 2022; gates on depthwise
    convolutions in the manner of it.
    """

    takes_scale = False

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        **kwargs: Any,
    ) -> None:
        if isinstance(depth_multiplier, bool) or not isinstance(depth_multiplier, int) or depth_multiplier < 1:
            raise ValueError(
                f"Invalid value for argument `depth_multiplier`. Expected a positive integer. "
                f"Received: {depth_multiplier!r}"
            )
        super().__init__(depth_multiplier, kernel_size, strides, padding, **kwargs)
        self.depth_multiplier = depth_multiplier
        self.attributes = GatedDepthwiseConv2DAttributes(**vars(self.attributes))

    def build(
        self, inputs_shape: Shape, input_gate_shape: Shape | None = None, gate_inputs_shape: Shape | None = None
    ) -> None:
        if len(inputs_shape) == 4 and inputs_shape[-1] is not None:  # else refused below
            self.filters = int(inputs_shape[-1]) * self.depth_multiplier
        super().build(inputs_shape, input_gate_shape, gate_inputs_shape)

    def kernel_shape(self, channels: int) -> tuple[int, ...]:
        return (*self.kernel_size, channels, self.depth_multiplier)

    def macs_when_open(self) -> float:
        return self._macs_per_pair * self.filters

    def call(
        self, inputs: Tensor, input_gate: Tensor = None, gate_inputs: Tensor = None, training: bool | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        shown = inputs if gate_inputs is None else gate_inputs
        if self.gate is None:
            gate = ops.ones((ops.shape(inputs)[0], self.filters), inputs.dtype)
            opened = ops.cast(gate, "float32")
        else:
            gate, opened = self.gate_values(shown, training)
        mask = None if input_gate is None else ops.repeat(input_gate, self.depth_multiplier, axis=-1)
        if mask is not None:
            gate = gate * ops.cast(ops.not_equal(mask, 0), gate.dtype)
        y = self._trained(inputs, gate, opened, mask) if training else self._inferred(inputs, gate, mask)
        return (y, gate) if self.return_gate else y

    def _trained(self, x: Tensor, gate: Tensor, opened: Tensor, mask: Tensor) -> Tensor:
        """Everything is computed, gradients reach closed gates too."""
        y = self.linear(x, self.kernel)
        if self.bias is not None:
            y = y + self.bias
        if self.norm is not None:
            y = self.norm(y, training=True)
        if mask is not None:
            opened = opened * straight_through_open(mask, self.budget_coefficient)
        if self._countable:
            macs = self._macs_per_pair * ops.sum(opened, axis=-1)
            context.record(gated_depthwise_conv_2d.name, self.macs_when_open(), ops.stop_gradient(macs), by_op=True)
            self.spend(macs)
        y = activate(y, self.activation)
        if self.gate is None:
            return straight_through_mask(y, ops.expand_dims(gate, (1, 2)))
        return y * ops.expand_dims(gate, (1, 2))

    def linear(self, x: Tensor, kernel: Tensor) -> Tensor:
        return ops.depthwise_conv(x, kernel, self.strides, self.padding, "channels_last", self.dilation_rate)

    def _inferred(self, x: Tensor, gate: Tensor, mask: Tensor) -> Tensor:
        """The op, or in eager mode inside `ops.skipping()` its open channels alone."""
        kernel, bias = (ops.cast(weight, x.dtype) for weight in self.folded_weights())
        if self.gate is None and mask is None:
            return self._without_gates(x, kernel, bias)
        tensors = (x, gate, kernel, bias)
        attributes = vars(self.attributes)
        if context.is_skipping():
            y = depthwise_open_channels(*tensors, **attributes)
            if y is not None:
                return y
        return gated_depthwise_conv_2d(*tensors, **attributes)

    def _conv_shape(self, inputs_shape: Shape) -> tuple[int | None, ...]:
        channels = inputs_shape[-1]
        return (*super()._conv_shape(inputs_shape)[:3], channels and channels * self.depth_multiplier)

    def compute_output_shape(
        self, inputs_shape: Shape, input_gate_shape: Shape | None = None, gate_inputs_shape: Shape | None = None
    ) -> Any:
        shape = self._conv_shape(inputs_shape)
        return (shape, (shape[0], shape[-1])) if self.return_gate else shape

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["filters"]
        return {**config, "depth_multiplier": self.depth_multiplier}
