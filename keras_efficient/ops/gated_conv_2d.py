"""`ke.gated_conv_2d`: a convolution that reads only open input channels and computes only open output channels.

    y[b, :, :, o] = g_out[b, o] * act(sum_i [g_in[b, i] != 0] * conv(x[b, :, :, i], W[:, :, i, o]) + bias[o])

`g_in` is a mask, never a scale; `g_out` scales after the activation and skips its channel at 0, as the C-Net of LC-Net
does (Xia et al., "Fully Dynamic Inference with Deep Neural Networks").
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_efficient.ops.attributes import Attributes, attribute, choice
from keras_efficient.ops.macs import conv_macs, conv_output_length
from keras_efficient.ops.registry import Argument, Cost, Op, Shape, check_sizes, register_op

Tensor = Any
ACTIVATIONS = ("linear", "relu", "relu6")
PADDINGS = ("valid", "same")


@dataclasses.dataclass(frozen=True)
class GatedConv2DAttributes(Attributes):
    """Strides, dilations, padding and activation of `ke.gated_conv_2d`."""

    stride_h: int = attribute(1, minimum=1, maximum=64)
    stride_w: int = attribute(1, minimum=1, maximum=64)
    dilation_h: int = attribute(1, minimum=1, maximum=64)
    dilation_w: int = attribute(1, minimum=1, maximum=64)
    padding: str = choice("valid", PADDINGS)
    activation: str = choice("linear", ACTIVATIONS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(self.stride_h, self.stride_w) > 1 and max(self.dilation_h, self.dilation_w) > 1:
            raise ValueError(
                "Invalid attributes of a gated convolution. Expected strides of 1 with dilation, or dilation of 1 with "
                f"strides. Received: {self}"
            )


def activate(x: Tensor, activation: str) -> Tensor:
    """Applies the activation of that name, one of `ACTIVATIONS`."""
    return x if activation == "linear" else ops.relu(x) if activation == "relu" else ops.relu6(x)


def reference(
    x: Tensor,
    g_in: Tensor,
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
    """The definition. `x [B, H, W, I]`, `g_in [B, I]`, `g_out [B, O]`, `kernel [h, w, I, O]`, `bias [O]`."""
    is_open = ops.cast(ops.not_equal(g_in, 0), x.dtype)
    y = ops.conv(
        x * ops.expand_dims(is_open, (1, 2)),
        kernel,
        strides=(stride_h, stride_w),
        padding=padding,
        data_format="channels_last",
        dilation_rate=(dilation_h, dilation_w),
    )
    return activate(y + bias, activation) * ops.expand_dims(g_out, (1, 2))


def output_shape(shapes: Sequence[Shape], attributes: GatedConv2DAttributes) -> Shape:
    """`[B, H', W', O]`; a dimension that is not known stays None."""
    (batch, height, width, channels), g_in, g_out, (kernel_h, kernel_w, inputs, filters), bias = shapes
    check_sizes(
        "ke.gated_conv_2d",
        {
            "input channels of `kernel`": (inputs, channels),
            "channels of `g_in`": (g_in[1], channels),
            "channels of `g_out`": (g_out[1], filters),
            "length of `bias`": (bias[0], filters),
            "batch of `g_in`": (g_in[0], batch),
            "batch of `g_out`": (g_out[0], batch),
        },
    )
    return (batch, *output_size((height, width), (kernel_h, kernel_w), attributes), filters)


def output_size(
    size: tuple[int | None, ...], kernel: tuple[int | None, ...], attributes: GatedConv2DAttributes
) -> tuple[int | None, ...]:
    """Height and width behind a convolution; one that is not known stays None."""
    strides = (attributes.stride_h, attributes.stride_w)
    dilations = (attributes.dilation_h, attributes.dilation_w)
    return tuple(
        length and conv_output_length(length, int(window or 0), stride, dilation, attributes.padding)
        for length, window, stride, dilation in zip(size, kernel, strides, dilations, strict=True)
    )


def cost(
    shapes: Sequence[Shape], attributes: GatedConv2DAttributes, open_counts: Sequence[Tensor] | None = None
) -> Cost:
    """Positions x kernel size x open inputs x open outputs; `open_counts`: (inputs, outputs), each `[B]`."""
    kernel_h, kernel_w, in_channels, filters = (int(size or 0) for size in shapes[3])
    _, height, width, _ = output_shape(shapes, attributes)
    if height is None or width is None:
        raise ValueError(
            f"The cost of ke.gated_conv_2d needs static height and width. Received shape: {tuple(shapes[0])}"
        )
    open_in, open_out = open_counts or (in_channels, filters)
    macs = conv_macs((height, width), (kernel_h, kernel_w), open_in, open_out)
    return Cost(macs, 4.0 * (kernel_h * kernel_w * in_channels * filters + filters))


def example(rng: np.random.Generator) -> tuple[list[np.ndarray], dict[str, Any]]:
    """A random valid call: some gates shut, some open, awkward sizes."""
    batch, height, width = int(rng.integers(1, 4)), int(rng.integers(5, 11)), int(rng.integers(5, 11))
    in_channels, filters = int(rng.integers(1, 20)), int(rng.integers(1, 36))
    kernel_h, kernel_w = int(rng.choice([1, 2, 3])), int(rng.choice([1, 3]))
    dilated = bool(rng.integers(2))
    first, second = (int(value) for value in rng.integers(1, 3, size=2))
    if kernel_h == kernel_w == 1:
        second = first  # TensorFlow 2.21 with oneDNN corrupts its heap in the gradient of a 1x1 kernel with two strides
    attributes = {
        "stride_h": 1 if dilated else first,
        "stride_w": 1 if dilated else second,
        "dilation_h": first if dilated else 1,
        "dilation_w": second if dilated else 1,
        "padding": str(rng.choice(PADDINGS)),
        "activation": str(rng.choice(ACTIVATIONS)),
    }
    g_out = np.clip(rng.normal(0.3, 0.5, (batch, filters)), 0, 1)
    arrays = [
        rng.normal(size=(batch, height, width, in_channels)),
        rng.integers(0, 2, (batch, in_channels)),
        g_out,
        rng.normal(size=(kernel_h, kernel_w, in_channels, filters)) / np.sqrt(kernel_h * kernel_w * in_channels),
        rng.normal(size=(filters,)),
    ]
    return [np.asarray(array, "float32") for array in arrays], attributes


gated_conv_2d = register_op(
    Op(
        name="ke.gated_conv_2d",
        version=1,
        arguments=(
            Argument("x", "activation", 4),
            Argument("g_in", "gate", 2),
            Argument("g_out", "gate", 2),
            Argument("kernel", "weight", 4, device_permutation=(3, 0, 1, 2)),
            Argument("bias", "weight", 1),
        ),
        attributes=GatedConv2DAttributes,
        reference=reference,
        output_shape=output_shape,
        cost=cost,
        example=example,
    )
)
