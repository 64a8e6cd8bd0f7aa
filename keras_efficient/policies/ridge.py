"""Ridge regression with a penalty chosen by cross-validation, in closed form."""

import numpy as np
from numpy.typing import NDArray

_PENALTIES = np.logspace(-5, 1, 13)  # per input, for columns of variance 1

Array = NDArray[np.float64]


def cross_fitted_ridge(columns: Array, targets: Array, folds: NDArray[np.int64]) -> tuple[Array, float, Array]:
    """Minimises `mean((columns @ w + b - targets)^2) + penalty * |scale * w|^2`.

    `scale` is the standard deviation of each column (a constant column gets weight 0). The penalty is the one with
    the smallest squared error on the folds left out.

    Args:
        columns: `[N, D]`.
        targets: `[N]`.
        folds: `[N]` number of the fold of each input, from 0; at least two different ones.

    Returns:
        `w` `[D]` and `b`, fitted to all inputs, and `[N]` predictions, each made by a fit without that input's fold.
    """
    weights, offsets, unseen = cross_fitted_ridges(columns, targets[:, None], folds)
    return weights[0], float(offsets[0]), unseen[:, 0]


def cross_fitted_ridges(columns: Array, targets: Array, folds: NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """`cross_fitted_ridge` of `T` targets `[N, T]` on the same columns, each with a penalty of its own.

    Returns:
        `[T, D]` and `[T]`, fitted to all inputs, and `[N, T]` predictions for inputs left out.
    """
    unseen = np.empty((len(_PENALTIES), *targets.shape))
    for fold in np.unique(folds):
        left_out = folds == fold
        weights, offsets = _ridge(columns[~left_out], targets[~left_out])
        unseen[:, left_out] = np.moveaxis(weights @ columns[left_out].T + offsets[..., None], 1, 2)
    best = np.argmin(np.mean((unseen - targets) ** 2, axis=1), axis=0)
    weights, offsets = _ridge(columns, targets)
    each = np.arange(targets.shape[1])
    return weights[best, each], offsets[best, each], unseen[best, :, each].T


def _ridge(columns: Array, targets: Array) -> tuple[Array, Array]:
    """Weights `[P, T, D]` and offsets `[P, T]` for all penalties, from one eigendecomposition."""
    mean, scale = columns.mean(axis=0), columns.std(axis=0)
    varies = scale > 1e-7
    standard = (columns - mean) * np.where(varies, 1.0 / np.where(varies, scale, 1.0), 0.0)
    variances, directions = np.linalg.eigh(standard.T @ standard / len(targets))
    along = (targets - targets.mean(axis=0)).T @ standard / len(targets) @ directions
    shrunk = along / (np.maximum(variances, 0.0) + _PENALTIES[:, None, None])
    weights = (shrunk @ directions.T) * np.where(varies, 1.0 / np.where(varies, scale, 1.0), 0.0)
    return weights, targets.mean(axis=0) - weights @ mean
