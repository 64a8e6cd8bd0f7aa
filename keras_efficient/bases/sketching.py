"""The start: a float kernel as sums of sign vectors, greedily."""

import numpy as np
from numpy.typing import NDArray

RELATIVE_ERROR_STOP = 1e-6
ROWS_AT_A_TIME = 4096


def sketched(rows: NDArray[np.floating], bases: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Sketches groups of weights `[R, n]` with up to `bases` bases each (structured sketching).

    Each new sign vector is the sign of what is left (0 counts as +1), after which all scales of the group are fitted
    anew by least squares. A group stops when the energy of what is left is below 1e-6 of its own, or at n bases.

    Returns:
        codes: `[R, n]` uint8.
        scales: `[R, bases]` float32, descending; 0 behind the bases that a group needs, all 0 for a group of zeros.
    """
    weights = np.asarray(rows, "float64")
    parts = [
        _sketched(weights[start : start + ROWS_AT_A_TIME], bases) for start in range(0, len(weights), ROWS_AT_A_TIME)
    ]
    return np.concatenate([codes for codes, _ in parts]), np.concatenate([scales for _, scales in parts])


def _sketched(weights: NDArray[np.float64], bases: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    count, size = weights.shape
    energy = np.einsum("rn,rn->r", weights, weights)
    signs = np.zeros((count, bases, size))
    scales = np.zeros((count, bases))
    residual = weights.copy()
    for basis in range(min(bases, size)):
        left = np.einsum("rn,rn->r", residual, residual)
        active = np.flatnonzero((energy > 0) & (left >= RELATIVE_ERROR_STOP * energy))
        if not len(active):
            break
        signs[active, basis] = np.where(residual[active] >= 0, 1.0, -1.0)
        found = signs[active, : basis + 1]
        gram = found @ found.transpose(0, 2, 1)
        scales[active, : basis + 1] = np.linalg.solve(gram, found @ weights[active][:, :, None])[..., 0]
        residual[active] = weights[active] - np.einsum("ri,rin->rn", scales[active, : basis + 1], found)
    negative = signs * np.where(scales < 0, -1.0, 1.0)[:, :, None] < 0
    scales = np.abs(scales)
    order = np.argsort(-scales, axis=1, kind="stable")
    scales = np.take_along_axis(scales, order, axis=1)
    negative = np.take_along_axis(negative, order[:, :, None], axis=1) & (scales > 0)[:, :, None]
    return np.packbits(negative, axis=1, bitorder="little")[:, 0], scales.astype("float32")
