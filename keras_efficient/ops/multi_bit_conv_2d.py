"""`ke.multi_bit_conv_2d`: a convolution whose weights are sums of scaled sign vectors, stored as packed bits.

    y[b, :, :, o] = act(conv(x^[b], W[o]) + bias[o])

with packed weights and inputs `x^` as `ops.multi_bit_weights` defines them. The weights of one output are flattened in
the attribute `order` before they are cut into groups:

    channelwise       order "hwi"   group_size = kernel_h * kernel_w * I
    pixelwise         order "hwi"   group_size = I
    subchannelwise    order "hwi"   group_size = kernel_h * kernel_w * I / s
    kernelwise        order "ihw"   group_size = kernel_h * kernel_w

Padding counts as the real number 0, with multi-bit inputs, too.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_efficient.ops.attributes import attribute, choice
from keras_efficient.ops.gated_conv_2d import ACTIVATIONS, PADDINGS, activate
from keras_efficient.ops.macs import conv_macs, conv_output_length
from keras_efficient.ops.multi_bit_weights import (
    MAX_BITS,
    WEIGHTS,
    MultiBitAttributes,
    check_weights,
    float_weights,
    quantized_inputs,
    random_weights,
    weight_bytes,
)
from keras_efficient.ops.registry import Argument, Cost, Op, Shape, register_op

Tensor = Any
ORDERS = ("hwi", "ihw")


@dataclasses.dataclass(frozen=True)
class MultiBitConv2DAttributes(MultiBitAttributes):
    """Those of all multi-bit ops, and the convolution's."""

    order: str = choice("hwi", ORDERS)
    kernel_h: int = attribute(1, minimum=1, maximum=4096)
    kernel_w: int = attribute(1, minimum=1, maximum=4096)
    stride_h: int = attribute(1, minimum=1, maximum=64)
    stride_w: int = attribute(1, minimum=1, maximum=64)
    dilation_h: int = attribute(1, minimum=1, maximum=64)
    dilation_w: int = attribute(1, minimum=1, maximum=64)
    padding: str = choice("valid", PADDINGS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if max(self.stride_h, self.stride_w) > 1 and max(self.dilation_h, self.dilation_w) > 1:
            raise ValueError(
                "Invalid attributes of a multi-bit convolution. Expected strides of 1 with dilation, or dilation of 1 "
                f"with strides. Received: {self}"
            )


def float_kernel(
    max_bits: Tensor,
    widths: Tensor,
    bits: Tensor,
    scales: Tensor,
    *,
    channels: int,
    outputs: int,
    attributes: MultiBitConv2DAttributes,
) -> Tensor:
    """The kernel `[h, w, I, O]` that the packed form stands for."""
    height, width = attributes.kernel_h, attributes.kernel_w
    weights = float_weights(
        max_bits,
        widths,
        bits,
        scales,
        outputs=outputs,
        length=height * width * channels,
        group_size=attributes.group_size,
        bases=attributes.bases,
    )
    if attributes.order == "hwi":
        return ops.transpose(ops.reshape(weights, (outputs, height, width, channels)), (1, 2, 3, 0))
    return ops.transpose(ops.reshape(weights, (outputs, channels, height, width)), (2, 3, 1, 0))


def reference(
    x: Tensor,
    max_bits: Tensor,
    widths: Tensor,
    bits: Tensor,
    scales: Tensor,
    levels: Tensor,
    bias: Tensor,
    **attributes: Any,
) -> Tensor:
    """The definition. `x [B, H, W, I]`, `max_bits [1]` or `[B]` (the smallest holds), `levels [1 + activation_bits]`.

    `widths`, `bits` and `scales` are the streams of `ops.bits.Packed`, `bias [O]`; the attributes are those of
    `MultiBitConv2DAttributes`.
    """
    values = MultiBitConv2DAttributes(**attributes)
    kernel = float_kernel(
        max_bits, widths, bits, scales, channels=int(x.shape[-1]), outputs=int(bias.shape[0]), attributes=values
    )
    y = ops.conv(
        quantized_inputs(x, levels, values.activation_bits),
        kernel,
        strides=(values.stride_h, values.stride_w),
        padding=values.padding,
        data_format="channels_last",
        dilation_rate=(values.dilation_h, values.dilation_w),
    )
    return activate(y + bias, values.activation)


def output_shape(shapes: Sequence[Shape], attributes: MultiBitConv2DAttributes) -> Shape:
    """`[B, H', W', O]`; a dimension that is not known stays None."""
    (batch, height, width, channels), _, *weights = shapes
    length = channels and attributes.kernel_h * attributes.kernel_w * channels
    outputs = check_weights("ke.multi_bit_conv_2d", weights, length, attributes)
    pad = attributes.padding
    new_h = height and conv_output_length(height, attributes.kernel_h, attributes.stride_h, attributes.dilation_h, pad)
    new_w = width and conv_output_length(width, attributes.kernel_w, attributes.stride_w, attributes.dilation_w, pad)
    return (batch, new_h, new_w, outputs)


def cost(
    shapes: Sequence[Shape], attributes: MultiBitConv2DAttributes, open_counts: Sequence[Tensor] | None = None
) -> Cost:
    """MACs of the convolution that it stands for; bytes of the packed weights, levels and bias."""
    _, height, width, outputs = output_shape(shapes, attributes)
    if height is None or width is None:
        raise ValueError(
            f"The cost of a multi-bit convolution needs static height and width. Received shape: {tuple(shapes[0])}"
        )
    kernel = (attributes.kernel_h, attributes.kernel_w)
    macs = conv_macs((height, width), kernel, int(shapes[0][3] or 0), int(outputs or 0))
    return Cost(macs, weight_bytes(shapes[2:]))


def example(rng: np.random.Generator) -> tuple[list[np.ndarray], dict[str, Any]]:
    """A random valid call of any grouping, awkward sizes."""
    plain, batch = rng.random() > 0.5, int(rng.integers(1, 3))
    height, width = (int(size) for size in rng.integers(5, 11, 2))
    channels, outputs = int(rng.choice([1, 3, 16, 33, 64])), int(rng.integers(1, 36))
    kernel_h, kernel_w = int(rng.choice([1, 2, 3])), int(rng.choice([1, 3]))
    length, dilated = kernel_h * kernel_w * channels, bool(rng.integers(2))
    first, second = (int(value) for value in rng.integers(1, 3, size=2))
    if kernel_h == kernel_w == 1:
        second = first  # TensorFlow 2.21 with oneDNN corrupts its heap in the gradient of a 1x1 kernel with two strides
    order = str(rng.choice(ORDERS))
    sizes = [length, channels, int(rng.integers(1, length + 1))] if order == "hwi" else [kernel_h * kernel_w]
    (max_bits, *weights), packed = random_weights(rng, outputs, length, int(rng.choice(sizes)), plain)
    attributes = {
        **packed,
        "activation": str(rng.choice(ACTIVATIONS)),
        "order": order,
        "kernel_h": kernel_h,
        "kernel_w": kernel_w,
        "stride_h": 1 if dilated else first,
        "stride_w": 1 if dilated else second,
        "dilation_h": first if dilated else 1,
        "dilation_w": second if dilated else 1,
        "padding": str(rng.choice(PADDINGS)),
    }
    x = rng.normal(size=(batch, height, width, channels)).astype("float32")
    return [x, np.repeat(max_bits, batch), *weights], attributes


multi_bit_conv_2d = register_op(
    Op(
        name="ke.multi_bit_conv_2d",
        version=1,
        arguments=(Argument("x", "activation", 4), MAX_BITS, *WEIGHTS),
        attributes=MultiBitConv2DAttributes,
        reference=reference,
        output_shape=output_shape,
        cost=cost,
        example=example,
        tolerance=0.06,
    )
)
