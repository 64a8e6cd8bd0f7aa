"""Multi-bit activations: the best offset and scales for the values of a batch.

x^ = levels[0] + sum_j levels[j] * d_j        d_j in {-1, 1}, the nearest of the 2^bits values
"""

from typing import Any

import numpy as np
from keras import ops

from keras_efficient.bases.codes import solved

Tensor = Any
RIDGE = 1e-4


def first_levels(x: Tensor, bits: int) -> Tensor:
    """Levels `[1 + bits]` to start from: the mean, and halving shares of the standard deviation."""
    halves = ops.convert_to_tensor(0.5 ** np.arange(bits), "float32")
    spread = ops.maximum(ops.std(x), 1e-6)
    return ops.concatenate([ops.reshape(ops.mean(x), (1,)), spread * halves])


def fitted_levels(x: Tensor, levels: Tensor) -> Tensor:
    """The levels `[1 + bits]` of least squared error for values x, each with the code nearest under `levels`.

    With one row `[1, d]` per code, only the share of x and the mean of x in each code enter the normal equations.
    """
    bits = int(levels.shape[0]) - 1
    table = 2.0 * (np.arange(2**bits)[:, None] >> np.arange(bits) & 1) - 1.0
    rows = ops.convert_to_tensor(np.concatenate([np.ones((2**bits, 1)), table], axis=1).astype("float32"))
    values = ops.matmul(rows, ops.expand_dims(levels, 1))[:, 0]
    order = ops.argsort(values)
    values, rows = ops.take(values, order, axis=0), ops.take(rows, order, axis=0)
    above = [ops.ones_like(x)]
    above += [ops.cast(x >= 0.5 * (values[k - 1] + values[k]), x.dtype) for k in range(1, 2**bits)]
    counts = ops.stack([ops.mean(mask) for mask in above] + [ops.zeros((), x.dtype)])
    sums = ops.stack([ops.mean(mask * x) for mask in above] + [ops.zeros((), x.dtype)])
    share, total = counts[:-1] - counts[1:], sums[:-1] - sums[1:]
    gram = ops.matmul(ops.transpose(rows) * share, rows) + RIDGE * ops.eye(bits + 1)
    right = ops.matmul(ops.transpose(rows), ops.expand_dims(total, 1)) + RIDGE * ops.expand_dims(levels, 1)
    found = solved(ops.expand_dims(gram, 0), ops.expand_dims(right, 0))[0]
    return ops.concatenate([found[:1], ops.abs(found[1:])])
