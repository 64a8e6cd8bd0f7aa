"""The pure mathematics of gates, and how gradients pass them.

Binary concrete gates are decisions alone. ReLU-1 gates are those of LC-Net (Xia et al., "Fully Dynamic Inference with
Deep Neural Networks"): 0 skips, a value in
(0, 1] is executed and scales the result.
"""

from typing import Any

from keras import ops

from keras_efficient.ops.gate_net import hard_gate, relu1

Tensor = Any
__all__ = [
    "budget_open",
    "concrete_gate",
    "hard_gate",
    "relu1",
    "soft_gate",
    "straight_through_mask",
    "straight_through_open",
]


def soft_gate(values: Tensor, threshold: float, leak: float) -> Tensor:
    """The same numbers as `hard_gate`, with a gradient for training.

    The derivative is 1 where the gate lies between `threshold` and 1, and `leak` elsewhere: with a leak of 0 a gate
    that has closed stays closed, and one that sits at 1 does not feel a budget.
    """
    gate = ops.stop_gradient(hard_gate(values, threshold))
    moves = ops.cast(ops.logical_and(gate > 0, values <= 1), gate.dtype)
    slope = ops.stop_gradient(moves + leak * (1.0 - moves))
    return gate + slope * (values - ops.stop_gradient(values))


def concrete_gate(values: Tensor, noise: Tensor, temperature: Tensor) -> Tensor:
    """1 where `values + noise > 0`, else 0, in float32, with the gradient of `sigmoid((values + noise) / temperature)`.

    Args:
        values: Logits of the gates.
        noise: Logistic noise of the same shape.
        temperature: The lower, the narrower the band of logits that a gradient reaches.

    The straight-through form of Maddison et al., "The Concrete Distribution", ICLR 2017.
    """
    noisy = ops.cast(values, "float32") + noise
    soft = ops.sigmoid(noisy / temperature)
    return ops.stop_gradient(ops.cast(noisy > 0, "float32")) + (soft - ops.stop_gradient(soft))


def straight_through_open(gate: Tensor, coefficient: Tensor) -> Tensor:
    """1 where the gate is above 0, else 0, in float32, with the gradient of the gate where a budget may move it.

    Sums of it count open gates in a way that a budget can push on: as in `budget_open`, a shut gate can only be opened
    (by a negative coefficient), and one at 1 only be lowered.
    """
    gate = ops.cast(gate, "float32")
    free = ops.stop_gradient(_may_move(gate <= 0, gate >= 1, coefficient))
    return ops.stop_gradient(ops.cast(gate > 0, "float32")) + free * (gate - ops.stop_gradient(gate))


def budget_open(values: Tensor, threshold: float, coefficient: Tensor) -> Tensor:
    """1 where the gate of `values` is open, else 0, in float32, with a gradient by which a budget can move every gate.

    Multiplied with `coefficient` in a loss, it moves a gate in (threshold, 1) either way; a shut one can only be opened
    (by a negative coefficient) and one at 1 only be lowered, so that none of them drifts away out of reach.
    """
    values = ops.cast(values, "float32")
    is_open = ops.cast(values > threshold, "float32")
    free = ops.stop_gradient(_may_move(values <= threshold, values >= 1.0, coefficient))
    return ops.stop_gradient(is_open) + free * (values - ops.stop_gradient(values))


def _may_move(shut: Tensor, saturated: Tensor, coefficient: Tensor) -> Tensor:
    """1 where a budget may move a gate, which it lowers if `coefficient` is above 0 and raises otherwise; else 0."""
    lowers = ops.cast(coefficient > 0, "float32")
    return ops.where(shut, 1.0 - lowers, ops.where(saturated, lowers, 1.0))


def straight_through_mask(x: Tensor, mask: Tensor) -> Tensor:
    """`x * mask` for a mask of zeros and ones, with the gradient of `x`: what is shut may still be worth opening."""
    return x + ops.stop_gradient(x * mask - x)
