"""Cached predictions of every exit on held-out data: what all exit policies are tuned, learned and judged on.

An input that leaves late passes the early exits too, so one forward pass through all exits is enough to know what
any policy would do with it. Use data that the network was *not* trained on: on its training data every exit looks
right, and a policy learns to leave at the first.
"""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from keras_efficient.layers.exit_features import EXIT_FEATURES, exit_features
from keras_efficient.policies.arguments import check_number, checked_exits
from keras_efficient.policies.label_posterior import expected_correct

_OWN_LABEL = 0.25  # share of the label itself in `smoothed_correct`


@dataclasses.dataclass(frozen=True, eq=False)
class ExitData:
    """Logits of every exit for `N` held-out inputs, their labels and what reaching each exit costs.

    Args:
        logits: `[N, K, C]` scores before the softmax: `N` inputs, `K >= 2` exits, `C >= 2` classes. Kept as float32.
        labels: `[N]` integers in `[0, C)`.
        costs: `[K]` cost up to and including each exit, positive and strictly increasing, in any unit: MACs, measured
            microseconds, a table from a phone.
        summary: `[N, K, S]` running summary of the branches, or None where the network has none.

    Attributes:
        logits, labels, summary: As given.
        costs: `[K]`, divided by the last: strictly increasing, the last one 1.
        total_cost: Cost of the whole network in the unit given.

    Raises:
        ValueError: If a shape, a label or a cost is not as described.

    Example:

    >>> data = ExitData.from_predictions({"exit_1": early_logits, "exit_2": late_logits}, labels, macs=[2e6, 9e6])
    >>> tuning, test = data.split(0.5, seed=0)
    """

    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    costs: NDArray[np.float64]
    summary: NDArray[np.float32] | None = None
    total_cost: float = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "logits", _checked_logits(self.logits))
        object.__setattr__(self, "labels", _checked_labels(self.labels, self.logits.shape))
        object.__setattr__(self, "summary", _checked_summary(self.summary, self.logits.shape))
        self._set_costs(self.costs)

    def _set_costs(self, costs: Any) -> None:
        checked = _checked_costs(costs, self.num_exits)
        object.__setattr__(self, "costs", checked / checked[-1])
        object.__setattr__(self, "total_cost", float(checked[-1]))

    @classmethod
    def from_predictions(
        cls,
        predictions: Mapping[str, ArrayLike] | Sequence[ArrayLike],
        labels: ArrayLike,
        costs: ArrayLike,
        summary: ArrayLike | None = None,
    ) -> "ExitData":
        """Makes the data from what `model.predict` returns for a network with several outputs.

        Args:
            predictions: Logits `[N, C]` of each exit, the first exit first; a dictionary counts in its own order.
            labels: `[N]` integers.
            costs: `[K]` MACs up to and including each exit, or another cost.
            summary: `[N, K, S]` running summary, or None.
        """
        arrays = list(predictions.values()) if isinstance(predictions, Mapping) else list(predictions)
        shapes = [np.shape(array) for array in arrays]
        if not shapes or any(len(shape) != 2 or shape != shapes[0] for shape in shapes):
            raise ValueError(
                "Invalid value for argument `predictions`. Expected one array [inputs, classes] per exit, all of the "
                f"same shape. Received: shapes {shapes}"
            )
        return cls(
            np.stack(arrays, axis=1),
            np.asarray(labels),
            np.asarray(costs),
            None if summary is None else np.asarray(summary),
        )

    def __len__(self) -> int:
        return int(self.logits.shape[0])

    @property
    def num_exits(self) -> int:
        """Number of exits, `K`."""
        return int(self.logits.shape[1])

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """`[N, K, 4 + S]`: `keras_efficient.layers.exit_features` of every exit, then the running summary."""
        columns = [
            ops.convert_to_numpy(exit_features(self.logits[:, k], k, self.num_exits)) for k in range(self.num_exits)
        ]
        features = np.stack(columns, axis=1)
        return features if self.summary is None else np.concatenate([features, self.summary], axis=-1)

    @property
    def num_features(self) -> int:
        """Width of `features`, `4 + S`."""
        return len(EXIT_FEATURES) + (0 if self.summary is None else int(self.summary.shape[-1]))

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """`[N, K]`: whether the largest logit of the exit is that of the label."""
        return np.asarray(self.logits.argmax(axis=-1) == self.labels[:, None])

    @cached_property
    def smoothed_correct(self) -> NDArray[np.float64]:
        """`[N, K]`: `correct` with most of the chance of the single label taken out; policies learn from it.

        A quarter of `correct` and three quarters of `keras_efficient.policies.label_posterior.expected_correct`, which
        is much steadier, and about as right on average. Policies are judged by `correct`.
        """
        return _OWN_LABEL * self.correct + (1 - _OWN_LABEL) * expected_correct(self.logits, self.labels)

    def rewards(self, trade_off: float, smoothed: bool = False) -> NDArray[np.float64]:
        """`[N, K]`: `correct - trade_off * cost`, what a policy earns by leaving at each exit.

        Args:
            trade_off: Accuracy (1 is 100 %) that one is ready to give for the cost of one full network; not negative.
            smoothed: With `smoothed_correct` for `correct`.
        """
        right = self.smoothed_correct if smoothed else self.correct
        return right - check_number("trade_off", trade_off, 0) * self.costs

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
        summary = None if self.summary is None else self.summary[chosen]
        taken = ExitData(self.logits[chosen], self.labels[chosen], self.costs, summary)
        object.__setattr__(taken, "total_cost", self.total_cost)
        return taken

    def select(self, exits: Sequence[int]) -> "ExitData":
        """The data of some exits, as if the network had no others; the last one must be among them.

        Features stay what they are, the relative depth of an exit included.

        Args:
            exits: At least two increasing indices.
        """
        chosen = list(checked_exits(exits, self.num_exits))
        summary = None if self.summary is None else self.summary[:, chosen]
        selected = ExitData(self.logits[:, chosen], self.labels, self.costs[chosen], summary)
        object.__setattr__(selected, "total_cost", self.total_cost)
        selected.__dict__["features"] = self.features[:, chosen]
        return selected

    def with_costs(self, costs: ArrayLike) -> "ExitData":
        """The same predictions at other costs, such as the microseconds measured on a phone.

        Args:
            costs: `[K]` cost up to and including each exit, positive and strictly increasing, in any unit.
        """
        other = copy.copy(self)  # keeps the features that are already made
        other._set_costs(costs)
        return other


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


def _checked_summary(summary: Any, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    if summary is None:
        return None
    array = np.asarray(summary, dtype=np.float32)
    if array.ndim != 3 or array.shape[:2] != shape[:2] or array.shape[2] < 1 or not np.isfinite(array).all():
        raise ValueError(
            f"Invalid value for argument `summary`. Expected finite numbers of shape [{shape[0]}, {shape[1]}, width], "
            f"or None. Received: shape {array.shape}"
        )
    return array


def _checked_costs(costs: Any, num_exits: int) -> NDArray[np.float64]:
    array = np.asarray(costs, dtype=np.float64)
    increasing = array.shape == (num_exits,) and array[0] > 0 and bool((np.diff(array) > 0).all())
    if not increasing or not np.isfinite(array[-1]):
        raise ValueError(
            f"Invalid value for argument `costs`. Expected {num_exits} positive, strictly increasing numbers, one per "
            f"exit. Received: {array.tolist()}"
        )
    return array
