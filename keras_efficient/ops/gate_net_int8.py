"""`ke.gate_net_int8`: gates from an int8 input. The means are not rounded to 8 bits, weights and gates are float32.

g[b, n] = S(sum_c input_scale * (mean_hw(x[b, :, :, c]) - input_zero_point) W[c, n] + bias[n])
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_efficient.ops.gate_net import GateNetAttributes, bias_between, decide, gate_net, pool
from keras_efficient.ops.int8 import Int8Input, quantized
from keras_efficient.ops.registry import Argument, Cost, Op, Shape, register_op

Tensor = Any


@dataclasses.dataclass(frozen=True)
class GateNetInt8Attributes(Int8Input, GateNetAttributes):
    """Those of `ke.gate_net`, and what the integers stand for."""


def reference(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor,
    *,
    gate: str,
    threshold: float,
    input_scale: float,
    input_zero_point: int,
) -> Tensor:
    """The definition. `x [B, H, W, C]` int8, `kernel [C, N]`, `bias [N]`; gates `[B, N]`, all float32."""
    means = (pool(ops.cast(x, "float32")) - float(input_zero_point)) * input_scale
    return decide(ops.matmul(means, kernel) + bias, gate, threshold)


def output_shape(shapes: Sequence[Shape], attributes: GateNetInt8Attributes) -> Shape:
    """`[B, N]`."""
    return gate_net.output_shape(shapes, attributes)


def cost(
    shapes: Sequence[Shape], attributes: GateNetInt8Attributes, open_counts: Sequence[Tensor] | None = None
) -> Cost:
    """That of `ke.gate_net`."""
    return gate_net.cost(shapes, attributes, open_counts)


def example(rng: np.random.Generator) -> tuple[list[np.ndarray], dict[str, Any]]:
    """A random valid call: the float op's example, its inputs quantised without a loss."""
    (x, kernel, _), attributes = gate_net.example(rng)
    scale, zero_point = float(np.float32(rng.uniform(0.01, 0.05))), int(rng.integers(-128, 128))
    integers = quantized(x, scale, zero_point)
    means = (integers.mean(axis=(1, 2), dtype="float64") - zero_point) * scale
    border = attributes["threshold"] if attributes["gate"] == "relu1" else 0.0
    bias = bias_between(means @ kernel, border)
    return [integers, kernel, bias], {**attributes, "input_scale": scale, "input_zero_point": zero_point}


gate_net_int8 = register_op(
    Op(
        name="ke.gate_net_int8",
        version=1,
        arguments=(
            Argument("x", "activation", 4, dtype="int8"),
            Argument("kernel", "weight", 2, device_permutation=(1, 0)),
            Argument("bias", "weight", 1),
        ),
        attributes=GateNetInt8Attributes,
        reference=reference,
        output_shape=output_shape,
        cost=cost,
        example=example,
    )
)
