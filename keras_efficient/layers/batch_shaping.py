"""`BatchShaping`: a prior under which a gate is open for some inputs of a batch and shut for others."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

Tensor = Any
CELLS = 1024  # of the table of the distribution function


@keras.saving.register_keras_serializable(package="keras_efficient")
class BatchShaping(keras.regularizers.Regularizer):
    """Pulls the values that every gate takes over a batch towards a Beta distribution.

    With `x_(1) <= ... <= x_(B)` the sorted values of one gate and `F` the distribution function of Beta(alpha, beta),

        loss = strength * mean over gates and i of (F(x_(i)) - i / (B + 1))^2

    A gate that is the same for all inputs, open or shut, is far from any such prior, whatever its rate; with alpha and
    beta below 1 most of the prior lies near 0 and 1, so that the gate has to tell inputs apart. It is for gates that
    have become constant (`models.gate_statistics` says which), and says nothing about compute: choose a prior whose
    mean, `alpha / (alpha + beta)`, is about the open rate that a budget leaves.

    >>> prior = layers.BatchShaping(0.6, 0.4, strength=0.1)
    >>> network = models.LCResNet(20, gate="binary_concrete", gate_regularizer=prior)

    The value of a gate is `relu1(v + 1/2)` for `"relu1"` and `sigmoid(v)` for `"binary_concrete"`: 1/2 is where it
    shuts, so that the prior leaves it open for a share of `1 - F(1/2)` of the inputs. The gradient reaches values of 0
    and 1 too. Batches should hold some dozens of inputs.

    Args:
        alpha: Above 0.
        beta: Above 0.
        strength: Weight of the loss of each layer, at least 0.

    Raises:
        ValueError: If a number is out of range.

    Reference: Bejnordi et al., "Batch-Shaping for Learning Conditional Channel Gated Networks", ICLR 2020; in the
    manner of it: there the loss is a sum, and its weight falls to 0 during the training.
    """

    def __init__(self, alpha: float = 0.6, beta: float = 0.4, strength: float = 0.1) -> None:
        for name, value in {"alpha": alpha, "beta": beta}.items():
            if not 0 < value < np.inf:
                raise ValueError(f"Invalid value for argument `{name}`. Expected a number above 0. Received: {value!r}")
        if not 0 <= strength < np.inf:
            raise ValueError(
                f"Invalid value for argument `strength`. Expected a number of at least 0. Received: {strength!r}"
            )
        self.alpha = float(alpha)
        self.beta = float(beta)
        self.strength = float(strength)
        self._table = beta_cdf(np.linspace(0, 1, CELLS + 1), self.alpha, self.beta).astype("float32")

    def __call__(self, x: Tensor) -> Tensor:
        """The loss of gates `[B, gates]` with values in [0, 1], a float32 scalar."""
        x = ops.sort(ops.cast(x, "float32"), axis=0)
        size = ops.cast(ops.shape(x)[0], "float32")
        rank = ops.cast(ops.arange(1, ops.shape(x)[0] + 1), "float32") / (size + 1.0)
        return self.strength * ops.mean(ops.square(self._distribution(x) - ops.expand_dims(rank, 1)))

    def _distribution(self, x: Tensor) -> Tensor:
        """`F(x)`, between the entries of the table on a straight line, so that its slope is the density's mean."""
        place = ops.stop_gradient(ops.clip(ops.floor(x * CELLS), 0, CELLS - 1))
        cell = ops.cast(place, "int32")
        low, high = (ops.take(ops.convert_to_tensor(self._table), cell + step) for step in (0, 1))
        return low + (x * CELLS - place) * (high - low)

    def get_config(self) -> dict[str, float]:
        return {"alpha": self.alpha, "beta": self.beta, "strength": self.strength}


def beta_cdf(x: ArrayLike, alpha: float, beta: float) -> NDArray[np.float64]:
    """The distribution function of Beta(alpha, beta) at `x` in [0, 1], by quadrature, to about 1e-6."""
    x = np.asarray(x, "float64")
    half = float(_below(np.array(0.5), alpha, beta)), float(_below(np.array(0.5), beta, alpha))
    left, right = _below(np.minimum(x, 0.5), alpha, beta), _below(np.minimum(1 - x, 0.5), beta, alpha)
    return np.where(x <= 0.5, left, sum(half) - right) / sum(half)


def _below(x: NDArray[np.float64], a: float, b: float) -> NDArray[np.float64]:
    """The integral of `t^(a - 1) (1 - t)^(b - 1)` from 0 to `x` at most 1/2.

    With `t = x s^k`, k so large that the integrand has no pole and no kink at 0.
    """
    nodes, weights = np.polynomial.legendre.leggauss(64)
    s, weights = (nodes + 1) / 2, weights / 2
    k = max(1.0, 3.0 / a)
    t = x[..., None] * s**k
    return x**a * k * ((s ** (k * a - 1) * (1 - t) ** (b - 1)) @ weights)
