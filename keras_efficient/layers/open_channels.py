"""Really computing only the open channels of a gated convolution, in eager mode and for one input at a time."""

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_efficient.ops import context, gated_conv_2d
from keras_efficient.ops.gated_conv_2d import GatedConv2DAttributes, activate

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
    read, written = as_array(g_in), as_array(g_out)
    if read is None or written is None or context.op_caller() is not None:
        return None
    if read.shape[0] != 1:
        raise ValueError(
            "Invalid value for argument `inputs`. Expected a batch of one input to skip channels. "
            f"Received: {read.shape[0]}"
        )
    inputs, outputs = np.flatnonzero(read[0]), np.flatnonzero(written[0])
    values = GatedConv2DAttributes(**attributes)
    shapes = [tuple(tensor.shape) for tensor in (x, g_in, g_out, kernel, bias)]
    counts = [ops.convert_to_tensor([float(len(indices))]) for indices in (inputs, outputs)]
    cost = gated_conv_2d.cost(shapes, values, counts)
    context.record(gated_conv_2d.name, gated_conv_2d.cost(shapes, values).macs, cost.macs, by_op=True)

    _, height, width, _ = gated_conv_2d.output_shape(shapes, values)
    y = ops.zeros((1, height, width, len(outputs)), x.dtype)
    if len(inputs) and len(outputs):
        y = ops.conv(
            ops.take(x, inputs, axis=3),
            ops.take(ops.take(kernel, inputs, axis=2), outputs, axis=3),
            strides=(values.stride_h, values.stride_w),
            padding=values.padding,
            data_format="channels_last",
            dilation_rate=(values.dilation_h, values.dilation_w),
        )
    y = activate(y + ops.take(bias, outputs), values.activation) * ops.expand_dims(
        ops.take(g_out, outputs, axis=1), (1, 2)
    )
    places = np.full(int(kernel.shape[3]), len(outputs))
    places[outputs] = np.arange(len(outputs))
    return ops.take(ops.concatenate([y, ops.zeros((1, height, width, 1), y.dtype)], axis=3), places, axis=3)
