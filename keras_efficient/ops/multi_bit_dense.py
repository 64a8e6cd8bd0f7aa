"""`ke.multi_bit_dense`: a dense layer whose weights are sums of scaled sign vectors, stored as packed bits.

    y[b, o] = act(bias[o] + sum_k W[o, k] * x^[b, k])

with packed weights `W [O, N]` and inputs `x^` as `ops.multi_bit_weights` defines them. Only a kernel is fast with it:
the reference unpacks the bits into floats. Kernels may compute with 8-bit tables of sums of four inputs
(`docs/native.md` has their error).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_efficient.ops.gated_conv_2d import ACTIVATIONS, activate
from keras_efficient.ops.macs import dense_macs
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


def reference(
    x: Tensor,
    max_bits: Tensor,
    widths: Tensor,
    bits: Tensor,
    scales: Tensor,
    levels: Tensor,
    bias: Tensor,
    *,
    group_size: int,
    bases: int,
    activation_bits: int,
    activation: str,
) -> Tensor:
    """The definition. `x [B, N]`, `max_bits [1]` or `[B]` (the smallest holds), `levels [1 + activation_bits]`.

    `widths`, `bits` and `scales` are the streams of `ops.bits.Packed`, `bias [O]`.
    """
    outputs, inputs = int(bias.shape[0]), int(x.shape[-1])
    weights = float_weights(
        max_bits, widths, bits, scales, outputs=outputs, length=inputs, group_size=group_size, bases=bases
    )
    return activate(ops.matmul(quantized_inputs(x, levels, activation_bits), ops.transpose(weights)) + bias, activation)


def output_shape(shapes: Sequence[Shape], attributes: MultiBitAttributes) -> Shape:
    """`[B, O]`."""
    (batch, inputs), _, *weights = shapes
    return (batch, check_weights("ke.multi_bit_dense", weights, inputs, attributes))


def cost(shapes: Sequence[Shape], attributes: MultiBitAttributes, open_counts: Sequence[Tensor] | None = None) -> Cost:
    """MACs of the dense layer that it stands for; bytes of the packed weights, levels and bias."""
    return Cost(dense_macs(int(shapes[0][1] or 0), int(shapes[-1][0] or 0)), weight_bytes(shapes[2:]))


def example(rng: np.random.Generator) -> tuple[list[np.ndarray], dict[str, Any]]:
    """A random valid call; the last group is often partly empty."""
    plain, batch = rng.random() > 0.5, int(rng.integers(1, 4))
    inputs, outputs = int(rng.integers(3, 90)), int(rng.integers(1, 40))
    group_size = int(rng.choice([8 * rng.integers(1, 9), rng.integers(1, inputs + 1)]))
    (max_bits, *weights), attributes = random_weights(rng, outputs, inputs, group_size, plain)
    x = rng.normal(size=(batch, inputs)).astype("float32")
    return [x, np.repeat(max_bits, batch), *weights], {**attributes, "activation": str(rng.choice(ACTIVATIONS))}


multi_bit_dense = register_op(
    Op(
        name="ke.multi_bit_dense",
        version=2,
        arguments=(Argument("x", "activation", 2), MAX_BITS, *WEIGHTS),
        attributes=MultiBitAttributes,
        reference=reference,
        output_shape=output_shape,
        cost=cost,
        example=example,
        tolerance=0.02,
    )
)
