"""`ke.gate_net`: gates for an input, from the means of its channels; what decides which channels and blocks run.

    g[b, n] = S(sum_c mean_hw(x[b, :, :, c]) W[c, n] + bias[n])

`"relu1"`: S(v) = min(max(v, 0), 1) where that is above `threshold`, else 0. `"binary_concrete"`: S(v) = 1 where v > 0,
else 0. The gate nets of LC-Net (Xia et al., "Fully Dynamic Inference with Deep Neural Networks"). A dozen small ops in
one: beside a convolution that is mostly shut they would take as long as it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_efficient.ops.attributes import Attributes, attribute, choice
from keras_efficient.ops.macs import dense_macs
from keras_efficient.ops.registry import Argument, Cost, Op, Shape, check_sizes, register_op

Tensor = Any
GATES = ("relu1", "binary_concrete")


@dataclasses.dataclass(frozen=True)
class GateNetAttributes(Attributes):
    """What makes a gate of a number."""

    gate: str = choice("relu1", GATES)
    threshold: float = attribute(0.01, minimum=0.0, maximum=1.0)


def relu1(values: Tensor) -> Tensor:
    """`min(max(v, 0), 1)`."""
    return ops.clip(values, 0.0, 1.0)


def hard_gate(values: Tensor, threshold: float) -> Tensor:
    """`relu1(v)` where that is above `threshold`, else exactly 0: the decision at inference."""
    gate = relu1(values)
    return gate * ops.cast(gate > threshold, gate.dtype)


def decide(values: Tensor, gate: str, threshold: float) -> Tensor:
    """The gates of the values `[B, gates]` of a gate net."""
    return hard_gate(values, threshold) if gate == "relu1" else ops.cast(values > 0, values.dtype)


def pool(x: Tensor) -> Tensor:
    """The mean of each channel of `x` `[B, ..., C]`, `[B, C]`; dimensions are kept on the way, or XNNPACK leaves it."""
    axes = tuple(range(1, len(x.shape) - 1))
    return ops.squeeze(ops.mean(x, axis=axes, keepdims=True), axes) if axes else x


def reference(x: Tensor, kernel: Tensor, bias: Tensor, *, gate: str, threshold: float) -> Tensor:
    """The definition. `x [B, H, W, C]`, `kernel [C, N]`, `bias [N]`; gates `[B, N]`."""
    return decide(ops.matmul(pool(x), kernel) + bias, gate, threshold)


def output_shape(shapes: Sequence[Shape], attributes: GateNetAttributes) -> Shape:
    """`[B, N]`."""
    x, (channels, gates), bias = shapes
    check_sizes("ke.gate_net", {"inputs of `kernel`": (channels, x[3]), "length of `bias`": (bias[0], gates)})
    return (x[0], gates)


def cost(shapes: Sequence[Shape], attributes: GateNetAttributes, open_counts: Sequence[Tensor] | None = None) -> Cost:
    """Channels x gates; forming the means multiplies nothing."""
    channels, gates = (int(size or 0) for size in shapes[1])
    return Cost(dense_macs(channels, gates), 4.0 * (channels + 1) * gates)


def example(rng: np.random.Generator) -> tuple[list[np.ndarray], dict[str, Any]]:
    """A random valid call: gates on both sides of the threshold, none close to it."""
    batch, height, width = (int(value) for value in rng.integers(1, 9, size=3))
    channels, gates = int(rng.integers(1, 40)), int(rng.integers(1, 40))
    x = rng.normal(size=(batch, height, width, channels)).astype("float32")
    kernel = (rng.normal(size=(channels, gates)) * (height * width / channels) ** 0.5).astype("float32")
    gate, threshold = str(rng.choice(GATES)), float(np.float32(rng.uniform(0, 0.2)))
    bias = bias_between(x.mean(axis=(1, 2), dtype="float64") @ kernel, threshold if gate == "relu1" else 0.0)
    return [x, kernel, bias], {"gate": gate, "threshold": threshold}


def bias_between(values: np.ndarray, border: float) -> np.ndarray:
    """Biases `[N]` that put the border into the widest gap between the `values` `[B, N]` of each gate.

    So no rounding moves a value across.
    """
    ordered = np.sort(np.stack([*values, values.min(axis=0) - 1, values.max(axis=0) + 1]), axis=0)
    gap = np.diff(ordered, axis=0).argmax(axis=0)
    column = np.arange(len(gap))
    middle = (ordered[gap, column] + ordered[gap + 1, column]) / 2
    return (border - middle).astype("float32")


gate_net = register_op(
    Op(
        name="ke.gate_net",
        version=1,
        arguments=(
            Argument("x", "activation", 4),
            Argument("kernel", "weight", 2, device_permutation=(1, 0)),
            Argument("bias", "weight", 1),
        ),
        attributes=GateNetAttributes,
        reference=reference,
        output_shape=output_shape,
        cost=cost,
        example=example,
    )
)
