"""Ridge regression with a penalty chosen by cross-validation, in closed form."""

import numpy as np
from numpy.typing import NDArray

_PENALTIES = np.logspace(-5, 1, 13)  # per input, for columns of variance 1

Array = NDArray[np.float64]


class CrossFittedRidge:
    """Minimises `mean((columns @ w + b - targets)^2) + penalty * |scale * w|^2`, for any targets on the same columns.

    `scale` is the standard deviation of each column (a constant column gets weight 0). The penalty is the one with
    the smallest squared error on the folds left out. What does not depend on the targets is computed once.

    Args:
        columns: `[N, D]`.
        folds: `[N]` number of the fold of each input, from 0; at least two different ones.
    """

    def __init__(self, columns: Array, folds: NDArray[np.int64]) -> None:
        self.columns = columns
        self.left_out = [folds == fold for fold in np.unique(folds)]
        self.parts = [_Ridge(columns, ~left_out) for left_out in self.left_out]
        self.whole = _Ridge(columns, np.ones(len(columns), dtype=bool))

    def fit(self, targets: Array) -> tuple[Array, float, Array]:
        """Fits targets `[N]`.

        Returns:
            `w` `[D]` and `b`, fitted to all inputs, and `[N]` predictions, each made by a fit without that input's
            fold.
        """
        unseen = np.empty((len(targets), len(_PENALTIES)))
        for left_out, part in zip(self.left_out, self.parts, strict=True):
            weights, offsets = part.solve(self.columns, targets)
            unseen[left_out] = self.columns[left_out] @ weights.T + offsets
        best = int(np.argmin(np.mean((unseen - targets[:, None]) ** 2, axis=0)))
        weights, offsets = self.whole.solve(self.columns, targets)
        return weights[best], float(offsets[best]), unseen[:, best]


class _Ridge:
    """All penalties from one eigendecomposition of the rows that are `used` `[N]`."""

    def __init__(self, columns: Array, used: NDArray[np.bool_]) -> None:
        rows = columns[used]
        self.used = used
        self.mean, scale = rows.mean(axis=0), rows.std(axis=0)
        varies = scale > 1e-7
        self.unit = np.where(varies, 1.0 / np.where(varies, scale, 1.0), 0.0)
        standard = (rows - self.mean) * self.unit
        self.variances, self.directions = np.linalg.eigh(standard.T @ standard / len(rows))

    def solve(self, columns: Array, targets: Array) -> tuple[Array, Array]:
        """Weights `[P, D]` and offsets `[P]`."""
        mean = targets[self.used].mean()
        away = np.where(self.used, targets - mean, 0.0)  # of sum 0, so that the columns' means drop out
        along = (away @ columns) * self.unit / self.used.sum() @ self.directions
        shrunk = along / (np.maximum(self.variances, 0.0) + _PENALTIES[:, None])
        weights = (shrunk @ self.directions.T) * self.unit
        return weights, mean - weights @ self.mean
