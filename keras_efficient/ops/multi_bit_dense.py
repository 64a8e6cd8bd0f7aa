"""`ke.multi_bit_dense`: a dense layer whose weights are sums of scaled sign vectors, stored as packed bits.

    y[b, o] = act(bias[o] + sum_p sum_i scales[o, p, i] * <sign(bits[o, p, i]), x_p[b]>)

where `x_p` is the p-th run of `group_size` inputs and a bit of 1 stands for -1 (Qu et al., "Adaptive Loss-aware
Quantization for Multi-bit Networks", section 3). Only a kernel is fast with it: the reference unpacks the bits into
floats.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_efficient.ops.attributes import Attributes, attribute, choice
from keras_efficient.ops.bits import sketch_dense_kernel
from keras_efficient.ops.gated_conv_2d import ACTIVATIONS, activate
from keras_efficient.ops.macs import dense_macs
from keras_efficient.ops.registry import Argument, Cost, Op, Shape, check_sizes, register_op

Tensor = Any


@dataclasses.dataclass(frozen=True)
class MultiBitDenseAttributes(Attributes):
    """Group size and activation of `ke.multi_bit_dense`; the other sizes follow from the tensors' shapes."""

    group_size: int = attribute(64, minimum=8, maximum=65536)
    activation: str = choice("linear", ACTIVATIONS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size % 8:
            raise ValueError(
                f"Invalid value for attribute `group_size`. Expected a multiple of 8. Received: {self.group_size}"
            )


def unpacked_signs(bits: Tensor, dtype: str) -> Tensor:
    """Bits `[rows, n/8]` uint8 to signs `[rows, n]`, in arithmetic that every runtime has."""
    rows, width = bits.shape
    powers = ops.cast(2.0 ** -np.arange(8), dtype)
    shifted = ops.floor(ops.expand_dims(ops.cast(bits, dtype), -1) * powers)
    bit = shifted - 2.0 * ops.floor(shifted * 0.5)
    return ops.reshape(1.0 - 2.0 * bit, (rows, width * 8))


def float_kernel(bits: Tensor, scales: Tensor, group_size: int, inputs: int) -> Tensor:
    """The weights that bits `[O, P, I, group_size/8]` and scales `[O, P, I]` stand for, `[O, inputs]`."""
    outputs, groups, bases = scales.shape
    signs = unpacked_signs(ops.reshape(bits, (outputs * groups * bases, group_size // 8)), scales.dtype)
    signs = ops.reshape(signs, (outputs * groups, bases, group_size))
    weights = ops.sum(signs * ops.reshape(scales, (outputs * groups, bases, 1)), axis=1)
    return ops.reshape(weights, (outputs, groups * group_size))[:, :inputs]


def reference(x: Tensor, bits: Tensor, scales: Tensor, bias: Tensor, *, group_size: int, activation: str) -> Tensor:
    """The definition. `x [B, N]`, `bits [O, P, I, group_size/8]` uint8, `scales [O, P, I]`, `bias [O]`."""
    weights = float_kernel(bits, scales, group_size, int(x.shape[-1]))
    return activate(ops.matmul(x, ops.transpose(weights)) + bias, activation)


def output_shape(shapes: Sequence[Shape], attributes: MultiBitDenseAttributes) -> Shape:
    """`[B, O]`."""
    (batch, inputs), (outputs, groups, bases, width), scales, bias = shapes
    size = attributes.group_size
    check_sizes(
        "ke.multi_bit_dense",
        {
            "bytes of a group in `bits`": (width, size // 8),
            "groups in `bits`": (groups, inputs and -(-inputs // size)),
            "outputs of `scales`": (scales[0], outputs),
            "groups of `scales`": (scales[1], groups),
            "bases of `scales`": (scales[2], bases),
            "length of `bias`": (bias[0], outputs),
        },
    )
    return (batch, outputs)


def cost(
    shapes: Sequence[Shape], attributes: MultiBitDenseAttributes, open_counts: Sequence[Tensor] | None = None
) -> Cost:
    """MACs of the dense layer that it stands for; bytes of bits, scales and bias as stored."""
    outputs, groups, bases, width = (int(size or 0) for size in shapes[1])
    return Cost(dense_macs(int(shapes[0][1] or 0), outputs), outputs * groups * bases * (width + 4.0) + 4.0 * outputs)


def example(rng: np.random.Generator) -> tuple[list[np.ndarray], dict[str, Any]]:
    """A random valid call; the last group is often partly empty."""
    batch, inputs, outputs = int(rng.integers(1, 4)), int(rng.integers(3, 90)), int(rng.integers(1, 40))
    group_size = 8 * int(rng.integers(1, 9))
    kernel = rng.normal(size=(inputs, outputs)) / np.sqrt(inputs)
    bits, scales = sketch_dense_kernel(kernel, int(rng.integers(1, 5)), group_size)
    arrays = [
        rng.normal(size=(batch, inputs)).astype("float32"),
        bits,
        scales,
        rng.normal(size=outputs).astype("float32"),
    ]
    return arrays, {"group_size": group_size, "activation": str(rng.choice(ACTIVATIONS))}


multi_bit_dense = register_op(
    Op(
        name="ke.multi_bit_dense",
        version=1,
        arguments=(
            Argument("x", "activation", 2),
            Argument("bits", "weight", 4, dtype="uint8", packed=True),
            Argument("scales", "weight", 3),
            Argument("bias", "weight", 1),
        ),
        attributes=MultiBitDenseAttributes,
        reference=reference,
        output_shape=output_shape,
        cost=cost,
        example=example,
    )
)
