"""`ke.gated_depthwise_conv_2d`: a depthwise convolution that computes only the channels which are open.

    y[b, :, :, c M + m] = g[b, c M + m] * act(conv(x[b, :, :, c], W[:, :, c, m]) + bias[c M + m])

The gate scales after the activation and skips its channel at 0, as that of `ke.gated_conv_2d` does. An output channel
reads one input channel and nothing else, so one gate is enough: where it is shut, that input is not read either.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_efficient.ops.gated_conv_2d import ACTIVATIONS, PADDINGS, GatedConv2DAttributes, activate, output_size
from keras_efficient.ops.macs import conv_macs
from keras_efficient.ops.registry import Argument, Cost, Op, Shape, check_sizes, register_op

Tensor = Any


@dataclasses.dataclass(frozen=True)
class GatedDepthwiseConv2DAttributes(GatedConv2DAttributes):
    """Strides, dilations, padding and activation of `ke.gated_depthwise_conv_2d`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride_h != self.stride_w:
            raise ValueError(
                "Invalid attributes of a depthwise convolution. Expected the same stride in both dimensions. "
                f"Received: {self.stride_h} and {self.stride_w}"
            )


def reference(
    x: Tensor,
    g_out: Tensor,
    kernel: Tensor,
    bias: Tensor,
    *,
    stride_h: int,
    stride_w: int,
    dilation_h: int,
    dilation_w: int,
    padding: str,
    activation: str,
) -> Tensor:
    """The definition. `x [B, H, W, C]`, `g_out [B, C M]`, `kernel [h, w, C, M]`, `bias [C M]`."""
    y = ops.depthwise_conv(
        x,
        kernel,
        strides=(stride_h, stride_w),
        padding=padding,
        data_format="channels_last",
        dilation_rate=(dilation_h, dilation_w),
    )
    return activate(y + bias, activation) * ops.expand_dims(g_out, (1, 2))


def output_shape(shapes: Sequence[Shape], attributes: GatedDepthwiseConv2DAttributes) -> Shape:
    """`[B, H', W', C M]`; a dimension that is not known stays None."""
    (batch, height, width, channels), g_out, (kernel_h, kernel_w, inputs, multiplier), bias = shapes
    assert inputs is not None
    assert multiplier is not None
    filters = inputs * multiplier
    check_sizes(
        "ke.gated_depthwise_conv_2d",
        {
            "channels of `kernel`": (inputs, channels),
            "channels of `g_out`": (g_out[1], filters),
            "length of `bias`": (bias[0], filters),
            "batch of `g_out`": (g_out[0], batch),
        },
    )
    return (batch, *output_size((height, width), (kernel_h, kernel_w), attributes), filters)


def cost(
    shapes: Sequence[Shape], attributes: GatedDepthwiseConv2DAttributes, open_counts: Sequence[Tensor] | None = None
) -> Cost:
    """Positions x kernel size x open outputs; `open_counts`: (outputs,), `[B]`."""
    kernel_h, kernel_w, channels, multiplier = (int(size or 0) for size in shapes[2])
    _, height, width, filters = output_shape(shapes, attributes)
    if height is None or width is None:
        raise ValueError(
            f"The cost of ke.gated_depthwise_conv_2d needs static height and width. Received shape: {tuple(shapes[0])}"
        )
    (open_out,) = open_counts or (filters,)
    macs = conv_macs((height, width), (kernel_h, kernel_w), 1, open_out)
    return Cost(macs, 4.0 * (kernel_h * kernel_w + 1) * channels * multiplier)


def example(rng: np.random.Generator) -> tuple[list[np.ndarray], dict[str, Any]]:
    """A random valid call: some gates shut, some open, awkward sizes."""
    batch, height, width = int(rng.integers(1, 4)), int(rng.integers(5, 11)), int(rng.integers(5, 11))
    channels, multiplier = int(rng.integers(1, 36)), int(rng.choice([1, 1, 2]))
    kernel_h, kernel_w = int(rng.choice([1, 2, 3])), int(rng.choice([1, 3]))
    dilated = bool(rng.integers(2))
    stride = 1 if dilated else int(rng.integers(1, 3))
    dilation = int(rng.integers(1, 3)) if dilated else 1
    attributes = {
        "stride_h": stride,
        "stride_w": stride,
        "dilation_h": dilation,
        "dilation_w": dilation,
        "padding": str(rng.choice(PADDINGS)),
        "activation": str(rng.choice(ACTIVATIONS)),
    }
    arrays = [
        rng.normal(size=(batch, height, width, channels)),
        np.clip(rng.normal(0.3, 0.5, (batch, channels * multiplier)), 0, 1),
        rng.normal(size=(kernel_h, kernel_w, channels, multiplier)) / np.sqrt(kernel_h * kernel_w),
        rng.normal(size=(channels * multiplier,)),
    ]
    return [np.asarray(array, "float32") for array in arrays], attributes


gated_depthwise_conv_2d = register_op(
    Op(
        name="ke.gated_depthwise_conv_2d",
        version=1,
        arguments=(
            Argument("x", "activation", 4),
            Argument("g_out", "gate", 2),
            Argument("kernel", "weight", 4),
            Argument("bias", "weight", 1),
        ),
        attributes=GatedDepthwiseConv2DAttributes,
        reference=reference,
        output_shape=output_shape,
        cost=cost,
        example=example,
    )
)
