"""`ke.gated_conv_2d_int8`: the gated convolution on int8 activations and weights, its rounding stated exactly.

    a[b, :, :, o] = bias[o] + sum_i [g_in[b, i] != 0] * conv(x[b, :, :, i] - input_zero_point, W[:, :, i, o])
    y[b, :, :, o] = saturate(round(float32(act(a)) * m[b, o]) + output_zero_point)
    m[b, o] = input_scale * kernel_scale[o] / output_scale * g_out[b, o]

`a` is an integer: one step of it is worth `s[o] = input_scale * kernel_scale[o]`, and `relu6` is cut at
`round(6 / s[o])` steps. All floats are float32 and computed in the order written, `round` takes halves to even, and
`saturate` cuts at -128 and 127. So every runtime gives the same bytes. What a gate shuts, and what lies beside the
picture, counts as the real number 0. The sum has 32 bits; the reference forms it in float32, which is exact while it
stays below 2^24 in magnitude (always up to 518 taps times input channels).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_efficient.ops.gated_conv_2d import GatedConv2DAttributes, gated_conv_2d
from keras_efficient.ops.int8 import Int8InputAndOutput, drawn_quantization, quantized
from keras_efficient.ops.registry import Argument, Cost, Op, Shape, check_sizes, register_op

Tensor = Any
MOST_STEPS = 2.0**30  # where relu6 is cut at the latest


@dataclasses.dataclass(frozen=True)
class GatedConv2DInt8Attributes(Int8InputAndOutput, GatedConv2DAttributes):
    """Those of `ke.gated_conv_2d`, and what the integers stand for."""


def reference(
    x: Tensor,
    g_in: Tensor,
    g_out: Tensor,
    kernel: Tensor,
    kernel_scale: Tensor,
    bias: Tensor,
    *,
    stride_h: int,
    stride_w: int,
    dilation_h: int,
    dilation_w: int,
    padding: str,
    activation: str,
    input_scale: float,
    input_zero_point: int,
    output_scale: float,
    output_zero_point: int,
) -> Tensor:
    """The definition. `x [B, H, W, I]` int8, gates `[B, I]` and `[B, O]` float32, `kernel [h, w, I, O]` int8.

    `kernel_scale [O]` is float32, `bias [O]` int32 in steps of the accumulator.
    """
    is_open = ops.cast(ops.not_equal(g_in, 0), "float32")
    sums = ops.conv(
        (ops.cast(x, "float32") - float(input_zero_point)) * ops.expand_dims(is_open, (1, 2)),
        ops.cast(kernel, "float32"),
        strides=(stride_h, stride_w),
        padding=padding,
        data_format="channels_last",
        dilation_rate=(dilation_h, dilation_w),
    )
    step = input_scale * kernel_scale
    y = ops.cast(ops.cast(sums, "int32") + bias, "float32")
    if activation != "linear":
        y = ops.relu(y)
    if activation == "relu6":
        y = ops.minimum(y, ops.minimum(ops.round(6.0 / step), MOST_STEPS))
    y = ops.round(y * ops.expand_dims((step / output_scale) * g_out, (1, 2)))
    return ops.cast(ops.clip(y + float(output_zero_point), -128.0, 127.0), "int8")


def output_shape(shapes: Sequence[Shape], attributes: GatedConv2DInt8Attributes) -> Shape:
    """`[B, H', W', O]`; a dimension that is not known stays None."""
    x, g_in, g_out, kernel, kernel_scale, bias = shapes
    check_sizes(
        "ke.gated_conv_2d_int8",
        {
            "length of `kernel_scale`": (kernel_scale[0], kernel[3]),
            "length of `bias`": (bias[0], kernel[3]),
        },
    )
    return gated_conv_2d.output_shape((x, g_in, g_out, kernel, bias), attributes)


def cost(
    shapes: Sequence[Shape], attributes: GatedConv2DInt8Attributes, open_counts: Sequence[Tensor] | None = None
) -> Cost:
    """The MACs of `ke.gated_conv_2d`; one byte for each weight, eight for each output channel."""
    kernel_h, kernel_w, in_channels, filters = (int(size or 0) for size in shapes[3])
    macs = gated_conv_2d.cost((*shapes[:4], shapes[5]), attributes, open_counts).macs
    return Cost(macs, 1.0 * kernel_h * kernel_w * in_channels * filters + 8.0 * filters)


def quantized_kernel(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float weights as int8 between -127 and 127 with one scale for each output channel, the last dimension.

    Returns:
        `(int8 of the same shape, scales float32 [O])`; a channel of zeros gets the scale 1.
    """
    largest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1))).astype("float32")
    scale = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype("float32")
    return np.clip(np.rint(kernel / scale), -127, 127).astype("int8"), scale


def quantized_bias(bias: np.ndarray, input_scale: float, kernel_scale: np.ndarray) -> np.ndarray:
    """Float biases in steps of the accumulator, int32 `[O]`."""
    steps = np.rint(np.asarray(bias, "float64") / (np.float32(input_scale) * kernel_scale))
    return np.clip(steps, -(2.0**30), 2.0**30).astype("int32")


def example(rng: np.random.Generator) -> tuple[list[np.ndarray], dict[str, Any]]:
    """A random valid call: the float op's example, quantised."""
    (x, g_in, g_out, kernel, bias), attributes = gated_conv_2d.example(rng)
    weights, kernel_scale = quantized_kernel(kernel)
    quantization = drawn_quantization(rng)
    input_scale = quantization["input_scale"]
    integers = quantized(x, input_scale, quantization["input_zero_point"])
    arrays = [integers, g_in, g_out, weights, kernel_scale, quantized_bias(bias, input_scale, kernel_scale)]
    return arrays, {**attributes, **quantization}


gated_conv_2d_int8 = register_op(
    Op(
        name="ke.gated_conv_2d_int8",
        version=1,
        arguments=(
            Argument("x", "activation", 4, dtype="int8"),
            Argument("g_in", "gate", 2),
            Argument("g_out", "gate", 2),
            Argument("kernel", "weight", 4, dtype="int8", device_permutation=(3, 0, 1, 2), packed=True),
            Argument("kernel_scale", "weight", 1),
            Argument("bias", "weight", 1, dtype="int32"),
        ),
        attributes=GatedConv2DInt8Attributes,
        reference=reference,
        output_shape=output_shape,
        cost=cost,
        example=example,
        output_dtype="int8",
    )
)
