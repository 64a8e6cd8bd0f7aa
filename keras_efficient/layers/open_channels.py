"""Really computing only the open channels of a gated convolution, in eager mode and for one input at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_efficient.ops import Op, context, gated_conv_2d, gated_depthwise_conv_2d
from keras_efficient.ops.gated_conv_2d import activate

Tensor = Any


def as_array(tensor: Tensor) -> NDArray[Any] | None:
    """The values of a tensor, or None while a graph is being traced and there are none."""
    try:
        return np.asarray(ops.convert_to_numpy(tensor))
    except (TypeError, ValueError, NotImplementedError, AttributeError):
        return None


def conv_open_channels(
    x: Tensor, g_in: Tensor, g_out: Tensor, kernel: Tensor, bias: Tensor, **attributes: Any
) -> Tensor | None:
    """`ops.gated_conv_2d` on the channels that are open alone; None where the gates have no values yet.

    Raises:
        ValueError: If the batch holds more than one input.
    """
    found = _open(g_in, g_out)
    if found is None:
        return None
    inputs, outputs = found
    _, height, width, _ = _recorded(gated_conv_2d, (x, g_in, g_out, kernel, bias), attributes, found)
    y = ops.zeros((1, height, width, len(outputs)), x.dtype)
    if len(inputs) and len(outputs):
        kernel_of_open = ops.take(ops.take(kernel, inputs, axis=2), outputs, axis=3)
        y = ops.conv(ops.take(x, inputs, axis=3), kernel_of_open, **_arguments(attributes))
    return _in_place(y, g_out, bias, outputs, attributes["activation"])


def depthwise_open_channels(x: Tensor, g_out: Tensor, kernel: Tensor, bias: Tensor, **attributes: Any) -> Tensor | None:
    """`ops.gated_depthwise_conv_2d` on the channels that are open alone; None where the gates have no values yet.

    Raises:
        ValueError: If the batch holds more than one input.
    """
    found = _open(g_out)
    if found is None:
        return None
    (outputs,) = found
    _, height, width, _ = _recorded(gated_depthwise_conv_2d, (x, g_out, kernel, bias), attributes, found)
    y = ops.zeros((1, height, width, 0), x.dtype)
    if len(outputs):
        read = ops.take(x, outputs // int(kernel.shape[3]), axis=3)  # with a multiplier some inputs more than once
        flat = ops.reshape(kernel, (*kernel.shape[:2], -1, 1))
        y = ops.depthwise_conv(read, ops.take(flat, outputs, axis=2), **_arguments(attributes))
    return _in_place(y, g_out, bias, outputs, attributes["activation"])


def _open(*gates: Tensor) -> list[NDArray[Any]] | None:
    """Indices of the open channels of each gate, None while there are no values."""
    arrays = [as_array(gate) for gate in gates]
    if any(array is None for array in arrays) or context.op_caller() is not None:
        return None
    found = [array for array in arrays if array is not None]
    if found[0].shape[0] != 1:
        raise ValueError(
            "Invalid value for argument `inputs`. Expected a batch of one input to skip channels. "
            f"Received: {found[0].shape[0]}"
        )
    return [np.flatnonzero(array[0]) for array in found]


def _recorded(op: Op, tensors: Sequence[Tensor], attributes: dict[str, Any], found: list[NDArray[Any]]) -> Any:
    """Notes the cost of the open channels; returns the shape of the op's result."""
    values = op.attributes(**attributes)
    shapes = [tuple(tensor.shape) for tensor in tensors]
    counts = [ops.convert_to_tensor([float(len(indices))]) for indices in found]
    context.record(op.name, op.cost(shapes, values).macs, op.cost(shapes, values, counts).macs, by_op=True)
    return op.output_shape(shapes, values)


def _arguments(attributes: dict[str, Any]) -> dict[str, Any]:
    """Of a convolution of `keras.ops`."""
    return {
        "strides": (attributes["stride_h"], attributes["stride_w"]),
        "padding": attributes["padding"],
        "data_format": "channels_last",
        "dilation_rate": (attributes["dilation_h"], attributes["dilation_w"]),
    }


def _in_place(y: Tensor, g_out: Tensor, bias: Tensor, outputs: NDArray[Any], activation: str) -> Tensor:
    """What follows the convolution, and zeros where channels are shut."""
    y = activate(y + ops.take(bias, outputs), activation) * ops.expand_dims(ops.take(g_out, outputs, axis=1), (1, 2))
    places = np.full(int(bias.shape[0]), len(outputs))
    places[outputs] = np.arange(len(outputs))
    return ops.take(ops.concatenate([y, ops.zeros((*y.shape[:3], 1), y.dtype)], axis=3), places, axis=3)
