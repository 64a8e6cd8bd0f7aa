"""`GatedDense`: a dense layer that computes only the units which the input at hand needs."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_efficient.layers.gated_conv_2d import GatedConv2D

Tensor = Any
Shape = Sequence[int | None]
OF_A_CONVOLUTION = ("filters", "kernel_size", "strides", "padding", "dilation_rate")


@keras.saving.register_keras_serializable(package="keras_efficient")
class GatedDense(GatedConv2D):
    """Dense layer whose units open and close per input.

        g = relu1(W_g x + b_g)                                # [B, units], values up to `gate_threshold` become 0
        y = g * act(batch_norm((x * (input_gate != 0)) W + b))

    A unit whose gate is 0 is zero and need not be computed; the next `GatedDense` need not read it either:

    >>> h, g = GatedDense(256, activation="relu", return_gate=True)(x)
    >>> y = GatedDense(64, gate=None)(h, input_gate=g)

    The gate net has as many weights as the layer itself, unless `gate_inputs` are fewer numbers than `inputs`, such as
    pooled features for a layer that reads flattened ones: without them, gates of one layer save only what the layers
    behind it do not read. It is a `GatedConv2D` of one position, kernel `[1, 1, C, units]`, op `ke.gated_conv_2d`.

    Args:
        units: Number of outputs.
        **kwargs: Those of `GatedConv2D` that do not speak of positions: `activation`, `use_bias`, `gate`,
            `return_gate`, `batch_normalization` and so on.

    Call arguments:
        inputs: `[B, C]`.
        input_gate: `[B, C]`, 0 where an input is shut (and zero); default all open.
        gate_inputs: `[B, ..., C']`, what the gate net reads; default `inputs`.
        training: Whether to train.

    Returns:
        `[B, units]`, with `return_gate=True` a tuple of it and the gates `[B, units]`.

    Reference: Xia et al., "Fully Dynamic Inference with Deep Neural Networks", IEEE TETC 2022; gates on dense layers in
    the manner of it.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        if isinstance(units, bool) or not isinstance(units, int) or units < 1:
            raise ValueError(f"Invalid value for argument `units`. Expected a positive integer. Received: {units!r}")
        super().__init__(units, 1, **kwargs)
        self.units = units

    def build(
        self, inputs_shape: Shape, input_gate_shape: Shape | None = None, gate_inputs_shape: Shape | None = None
    ) -> None:
        if len(inputs_shape) != 2 or inputs_shape[-1] is None:
            raise ValueError(
                "Invalid shape for argument `inputs`. Expected [batch, features] with known features. "
                f"Received: {tuple(inputs_shape)}"
            )
        super().build(_one_position(inputs_shape), input_gate_shape, gate_inputs_shape)

    def call(
        self, inputs: Tensor, input_gate: Tensor = None, gate_inputs: Tensor = None, training: bool | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        shown = inputs if gate_inputs is None else gate_inputs
        found = super().call(ops.expand_dims(inputs, (1, 2)), input_gate, shown, training)
        y, gate = found if self.return_gate else (found, None)
        y = ops.squeeze(y, (1, 2))
        return (y, gate) if self.return_gate else y

    def linear(self, x: Tensor, kernel: Tensor) -> Tensor:
        return ops.expand_dims(ops.matmul(ops.squeeze(x, (1, 2)), kernel[0, 0]), (1, 2))

    def compute_output_shape(
        self, inputs_shape: Shape, input_gate_shape: Shape | None = None, gate_inputs_shape: Shape | None = None
    ) -> Any:
        shape = (inputs_shape[0], self.units)
        return (shape, shape) if self.return_gate else shape

    def get_config(self) -> dict[str, Any]:
        config = {key: value for key, value in super().get_config().items() if key not in OF_A_CONVOLUTION}
        return {**config, "units": self.units}


def _one_position(shape: Shape) -> Shape:
    return (shape[0], 1, 1, shape[1])
