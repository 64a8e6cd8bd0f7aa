"""Codes and scales: the weights they stand for, the best codes for given weights, the best scales for given codes."""

from typing import Any

import numpy as np
from keras import ops

Tensor = Any
MAX_BASES = 8
RELATIVE_RIDGE = 1e-6


def signs(codes: Tensor, bases: int) -> Tensor:
    """The signs of the first `bases` bases of codes `[R, n]`: `[R, bases, n]` float32 of -1 and 1."""
    bits = ops.cast(codes, "int32")
    return ops.stack([_plane(bits, i, "float32") for i in range(bases)], axis=1)


def _plane(bits: Tensor, i: int, dtype: str) -> Tensor:
    """The signs of basis i of codes `[R, n]` int32."""
    return 1.0 - 2.0 * ops.cast(ops.bitwise_and(ops.right_shift(bits, i), 1), dtype)


def reconstructed(codes: Tensor, scales: Tensor) -> Tensor:
    """The weights `[R, n]` that codes `[R, n]` and scales `[R, I]` stand for.

    Bases are added in their order, so that dropping one with scale 0 changes no bit of the sum.
    """
    bits = ops.cast(codes, "int32")
    total = ops.zeros(ops.shape(codes), scales.dtype)
    for i in range(scales.shape[1]):
        total = total + _plane(bits, i, scales.dtype) * scales[:, i : i + 1]
    return total


def assigned(targets: Tensor, scales: Tensor) -> Tensor:
    """The codes `[R, n]` uint8 whose weights are nearest to `targets` `[R, n]`, scales `[R, I]` given.

    The `2^I` weights that a group can have are sorted, and each target is looked up among the midpoints between
    neighbours by bisection: I look-ups per weight, no `[R, 2^I, n]` tensor.
    """
    bases = int(scales.shape[1])
    if bases == 0:
        return ops.zeros(ops.shape(targets), "uint8")
    every_code = np.arange(2**bases)
    table = (1.0 - 2.0 * (every_code[None, :] >> np.arange(bases)[:, None] & 1)).astype("float32")
    values = sum(scales[:, i : i + 1] * table[i : i + 1] for i in range(bases))
    order = ops.argsort(values, axis=1)
    values = ops.take_along_axis(values, order, axis=1)
    midpoints = 0.5 * (values[:, 1:] + values[:, :-1])
    rank = ops.zeros(ops.shape(targets), "int32")
    for bit in reversed(range(bases)):
        above = targets > ops.take_along_axis(midpoints, rank + (2**bit - 1), axis=1)
        rank = rank + 2**bit * ops.cast(above, "int32")
    return ops.cast(ops.take_along_axis(order, rank, axis=1), "uint8")


def fitted(codes: Tensor, live: Tensor, targets: Tensor, weighting: Tensor) -> Tensor:
    """The scales `[R, I]` that minimise `sum_j h_j (w_j - targets_j)^2`, codes given; those not in `live` are 0.

    With T the minimiser of the quadratic model this is ALQ's speed-up, `(B' H B)^-1 B' (h w - p)`. The ridge is
    relative to the mean of the diagonal, so that small gradients do not pull scales to 0.

    Args:
        codes: `[R, n]` uint8.
        live: `[R, I]`, 1 where a basis is live, else 0.
        targets: `[R, n]`.
        weighting: h, `[R, n]`, positive.
    """
    bases = int(live.shape[1])
    weighting = weighting / ops.mean(weighting, axis=1, keepdims=True)
    bits = ops.cast(codes, "int32")
    basis = [_plane(bits, i, "float32") * live[:, i : i + 1] for i in range(bases)]
    weighted = [part * weighting for part in basis]
    diagonal = RELATIVE_RIDGE * targets.shape[1] * live + (1.0 - live) * targets.shape[1]
    gram: dict[tuple[int, int], Tensor] = {}
    for i in range(bases):  # sums over n, all in one pass: products of matrices this narrow are slower
        for j in range(i, bases):
            gram[i, j] = gram[j, i] = ops.sum(weighted[i] * basis[j], axis=1) + (diagonal[:, i] if i == j else 0.0)
    moment = [ops.sum(part * targets, axis=1) for part in weighted]
    matrix = ops.stack([ops.stack([gram[i, j] for j in range(bases)], axis=1) for i in range(bases)], axis=1)
    return solved(matrix, ops.expand_dims(ops.stack(moment, axis=1), -1)) * live


def solved(matrix: Tensor, right: Tensor) -> Tensor:
    """Solves positive definite systems `[R, I, I]`, `[R, I, 1]`, I at most 8, by elimination over all at once."""
    size = int(matrix.shape[1])
    rows = [[matrix[:, i, j] for j in range(size)] + [right[:, i, 0]] for i in range(size)]
    for pivot in range(size):
        inverse = 1.0 / rows[pivot][pivot]
        for i in range(pivot + 1, size):
            factor = rows[i][pivot] * inverse
            for j in range(pivot + 1, size + 1):
                rows[i][j] = rows[i][j] - factor * rows[pivot][j]
    found: list[Tensor] = [None] * size
    for i in reversed(range(size)):
        value = rows[i][size]
        for j in range(i + 1, size):
            value = value - rows[i][j] * found[j]
        found[i] = value / rows[i][i]
    return ops.stack(found, axis=1)


def flipped_positive(codes: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """The same weights with no scale below 0: the signs of such a basis turn over."""
    bases = int(scales.shape[1])
    powers = np.asarray([2**i for i in range(bases)], "int32")
    mask = ops.sum(ops.cast(scales < 0, "int32") * powers, axis=1, keepdims=True)
    return ops.cast(ops.bitwise_xor(ops.cast(codes, "int32"), mask), "uint8"), ops.abs(scales)
