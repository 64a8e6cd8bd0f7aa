"""Cached predictions of every exit on held-out data: what all exit policies are tuned, learned and judged on.

An input that leaves late passes the early exits too, so one forward pass through all exits is enough to know what
any policy would do with it. Use data that the network was *not* trained on: on its training data every exit looks
right, and a policy learns to leave at the first.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from keras_efficient.layers.exit_features import exit_features
from keras_efficient.policies.arguments import check_number


@dataclasses.dataclass(frozen=True, eq=False)
class ExitData:
    """Logits of every exit for `N` held-out inputs, their labels and what reaching each exit costs.

    Attributes:
        logits: `[N, K, C]` scores before the softmax: `N` inputs, `K >= 2` exits, `C >= 2` classes. Kept as float32.
        labels: `[N]` integers in `[0, C)`.
        costs: `[K]` MACs up to and including each exit, divided by those of the last one: positive, strictly
            increasing, the last one 1.

    Raises:
        ValueError: If a shape, a label or a cost is not as described.

    Example:

    >>> data = ExitData.from_predictions({"exit_1": early_logits, "exit_2": late_logits}, labels, macs=[2e6, 9e6])
    >>> tuning, test = data.split(0.5, seed=0)
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    costs: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "logits", _checked_logits(self.logits))
        object.__setattr__(self, "labels", _checked_labels(self.labels, self.logits.shape))
        object.__setattr__(self, "costs", _checked_costs(self.costs, self.num_exits))

    @classmethod
    def from_predictions(
        cls, predictions: Mapping[str, ArrayLike] | Sequence[ArrayLike], labels: ArrayLike, macs: ArrayLike
    ) -> "ExitData":
        """Makes the data from what `model.predict` returns for a network with several outputs.

        Args:
            predictions: Logits `[N, C]` of each exit, the first exit first; a dictionary counts in its own order.
            labels: `[N]` integers.
            macs: `[K]` MACs up to and including each exit, in any unit: they are divided by the last.
        """
        arrays = list(predictions.values()) if isinstance(predictions, Mapping) else list(predictions)
        shapes = [np.shape(array) for array in arrays]
        if not shapes or any(len(shape) != 2 or shape != shapes[0] for shape in shapes):
            raise ValueError(
                "Invalid value for argument `predictions`. Expected one array [inputs, classes] per exit, all of the "
                f"same shape. Received: shapes {shapes}"
            )
        cumulative = np.asarray(macs, dtype=np.float64)
        if cumulative.ndim != 1 or cumulative.size == 0 or not cumulative[-1] > 0:
            raise ValueError(
                "Invalid value for argument `macs`. Expected one positive number per exit. "
                f"Received: {cumulative.tolist()}"
            )
        return cls(np.stack(arrays, axis=1), np.asarray(labels), cumulative / cumulative[-1])

    def __len__(self) -> int:
        return int(self.logits.shape[0])

    @property
    def num_exits(self) -> int:
        """Number of exits, `K`."""
        return int(self.logits.shape[1])

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """`[N, K, 4]`: `keras_efficient.layers.exit_features` of every exit."""
        columns = [
            ops.convert_to_numpy(exit_features(self.logits[:, k], k, self.num_exits)) for k in range(self.num_exits)
        ]
        return np.stack(columns, axis=1)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """`[N, K]`: whether the largest logit of the exit is that of the label."""
        return np.asarray(self.logits.argmax(axis=-1) == self.labels[:, None])

    def rewards(self, trade_off: float) -> NDArray[np.float64]:
        """`[N, K]`: `correct - trade_off * cost`, what a policy earns by leaving at each exit.

        Args:
            trade_off: Accuracy (1 is 100 %) that one is ready to give for the cost of one full network; not negative.
        """
        return self.correct - check_number("trade_off", trade_off, 0) * self.costs

    def split(self, fraction: float = 0.5, seed: int = 0) -> "tuple[ExitData, ExitData]":
        """Shuffles and splits into two disjoint parts, the first holding `fraction` of the inputs."""
        size = round(fraction * len(self)) if 0 < fraction < 1 else 0
        if not 0 < size < len(self):
            raise ValueError(
                "Invalid value for argument `fraction`. Expected a number between 0 and 1 that leaves both parts at "
                f"least one of the {len(self)} inputs. Received: {fraction}"
            )
        order = np.random.default_rng(seed).permutation(len(self))
        return self.take(order[:size]), self.take(order[size:])

    def take(self, indices: ArrayLike) -> "ExitData":
        """The data of the given inputs."""
        chosen = np.asarray(indices)
        return ExitData(self.logits[chosen], self.labels[chosen], self.costs)


def _checked_logits(logits: Any) -> NDArray[np.float32]:
    array = np.asarray(logits)
    if array.ndim != 3 or array.shape[0] < 1 or array.shape[1] < 2 or array.shape[2] < 2:
        raise ValueError(
            "Invalid value for argument `logits`. Expected shape [inputs, exits, classes] with at least one input, "
            f"two exits and two classes. Received: shape {array.shape}"
        )
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError("Invalid value for argument `logits`. Expected finite numbers. Received: NaN or infinity")
    return array


def _checked_labels(labels: Any, shape: tuple[int, ...]) -> NDArray[np.int64]:
    array = np.asarray(labels)
    if array.shape != shape[:1] or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"Invalid value for argument `labels`. Expected {shape[0]} integers, one per input. "
            f"Received: shape {array.shape}, dtype {array.dtype}"
        )
    if array.min() < 0 or array.max() >= shape[2]:
        raise ValueError(
            f"Invalid value for argument `labels`. Expected integers in [0, {shape[2]}). "
            f"Received: values from {array.min()} to {array.max()}"
        )
    return array.astype(np.int64)


def _checked_costs(costs: Any, num_exits: int) -> NDArray[np.float64]:
    array = np.asarray(costs, dtype=np.float64)
    increasing = array.shape == (num_exits,) and array[0] > 0 and bool((np.diff(array) > 0).all())
    if not increasing or not np.isclose(array[-1], 1.0, rtol=0, atol=1e-9):
        raise ValueError(
            f"Invalid value for argument `costs`. Expected {num_exits} positive, strictly increasing numbers, one per "
            f"exit, the last one 1. Received: {array.tolist()}"
        )
    return array
