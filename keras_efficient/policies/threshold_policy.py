"""Leave as soon as an exit is sure enough: one number, and a baseline that is hard to beat."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_efficient.layers.exit_features import EXIT_FEATURES
from keras_efficient.policies.arguments import check_choice, check_exit_index, check_number
from keras_efficient.policies.evaluation import evaluate
from keras_efficient.policies.exit_data import ExitData
from keras_efficient.policies.exit_policy import ExitPolicy
from keras_efficient.policies.thresholds import best_thresholds, between

Measure = Literal["confidence", "entropy", "margin"]
_SIGN = {"confidence": 1.0, "entropy": -1.0, "margin": 1.0}  # +1 where a large value means a sure exit


@dataclasses.dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """Accuracy and mean cost of every threshold that acts differently on some data, the costliest first.

    Attributes:
        thresholds: `[T]`. At the first nobody leaves before the last exit; at the last all leave at the first.
        accuracy: `[T]` share of inputs classified right.
        cost: `[T]` mean cost, strictly decreasing; 1 is the whole network.
    """

    thresholds: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    cost: NDArray[np.float64]


@keras.saving.register_keras_serializable(package="keras_efficient")
class ThresholdPolicy(ExitPolicy):
    """Leaves at the first exit whose confidence, entropy or margin passes a threshold.

    The score is `confidence - threshold`, `margin - threshold` or `threshold - entropy`. Entropy is divided by
    `log(classes)`, so that all three lie between 0 and 1. As in BranchyNet (Teerapittayanon et al., ICPR 2016).

    Args:
        threshold: Where to leave: one number for all exits, or `K - 1`, one for each exit but the last. A number
            outside [0, 1] makes all inputs leave there, or none.
        measure: `"confidence"`, `"entropy"` or `"margin"`.

    Example:

    >>> policy = ThresholdPolicy.tune(held_out, budget=0.5)
    >>> evaluate(policy, test).accuracy
    """

    def __init__(
        self, threshold: float | Sequence[float] = 0.9, measure: Measure = "confidence", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.threshold: float | list[float]
        if isinstance(threshold, list | tuple) and threshold:
            self.threshold = [check_number("threshold", one) for one in threshold]
            self.num_exits = len(self.threshold) + 1
        else:
            self.threshold = check_number("threshold", threshold)
        self.measure = check_choice("measure", measure, tuple(_SIGN))

    def call(self, features: Any, exit_index: int) -> Any:
        value = features[:, EXIT_FEATURES.index(self.measure)]
        threshold = self.threshold
        if isinstance(threshold, list):
            check_exit_index(exit_index, self.num_exits)
            if exit_index == self.num_exits - 1:
                return ops.ones_like(value)
            threshold = threshold[exit_index]
        return (value - threshold) * _SIGN[self.measure]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "threshold": self.threshold, "measure": self.measure}

    @classmethod
    def tune(
        cls,
        data: ExitData,
        *,
        budget: float | None = None,
        accuracy_drop: float | None = None,
        trade_off: float | None = None,
        measure: Measure = "confidence",
        per_exit: bool = False,
        **kwargs: Any,
    ) -> "ThresholdPolicy":
        """The best threshold on held-out data, found by an exact sweep of all that act differently.

        Give exactly one of:

        Args:
            data: `ExitData` that the network was not trained on.
            budget: Mean cost that may not be exceeded, in (0, 1]: the most accurate threshold within it.
            accuracy_drop: Percentage points below the last exit's accuracy that are allowed: the cheapest threshold
                that keeps to it.
            trade_off: Price of one full network in accuracy: the threshold of the highest
                `accuracy - trade_off * cost`.
            measure: What is compared with the threshold.
            per_exit: One threshold for each exit, for a `budget` or `trade_off`: from the best single one, each in turn
                is moved to its best place until none moves. A budget becomes a trade-off, by bisection.

        Raises:
            ValueError: If not exactly one goal is given, or if leaving at the first exit already costs more than
                `budget`.
        """
        goals = {"budget": budget, "accuracy_drop": accuracy_drop, "trade_off": trade_off}
        given = {name: goal for name, goal in goals.items() if goal is not None}
        if len(given) != 1:
            raise ValueError(
                "Expected exactly one of the arguments `budget`, `accuracy_drop` and `trade_off`. "
                f"Received: {', '.join(f'{name}={goal}' for name, goal in given.items()) or 'none'}"
            )
        curve = threshold_curve(data, measure)
        if per_exit:
            each = cls(_one_for_each_exit(data, curve, budget, trade_off, measure), measure, **kwargs)
            if budget is None:
                return each
            # Prices reach the corners of the curve only; between them a single threshold may be more accurate.
            one = cls(float(curve.thresholds[_most_accurate_within(curve, budget)]), measure, **kwargs)
            return max((each, one), key=lambda policy: evaluate(policy, data).accuracy)
        if budget is not None:
            best = _most_accurate_within(curve, budget)
        elif accuracy_drop is not None:
            best = _cheapest_with(curve, float(data.correct[:, -1].mean()), accuracy_drop)
        else:
            best = _last_best(curve.accuracy - check_number("trade_off", trade_off, 0) * curve.cost)
        return cls(float(curve.thresholds[best]), measure, **kwargs)


def threshold_curve(data: ExitData, measure: Measure = "confidence") -> ThresholdCurve:
    """Accuracy and cost of every threshold that acts differently on `data`, in `O(N K log(N K))`.

    With `s` the measure, signed so that large means sure, an input passes exit `k` unless one of `s_1..s_k` is above
    the threshold `t`: unless their running maximum `m_k > t`. So each pair of input and exit turns from "passed" to
    "left at or before" at `t = m_k`, and all curves are cumulative sums over the sorted `m_k`.
    """
    sign = _SIGN[check_choice("measure", measure, tuple(_SIGN))]
    sureness = sign * data.features[:, :-1, EXIT_FEATURES.index(measure)]
    order_key = np.maximum.accumulate(sureness, axis=1).ravel()
    order = np.argsort(-order_key, kind="stable")
    turns = order_key[order]
    correct = data.correct.astype(np.int64)
    gained = (correct[:, :-1] - correct[:, 1:]).ravel()[order]  # right answers won by leaving at k, not at k + 1
    saved = np.broadcast_to(np.diff(data.costs), sureness.shape).ravel()[order]

    last_of_equals = np.append(turns[1:] != turns[:-1], True)
    right = correct[:, -1].sum() + np.cumsum(gained)[last_of_equals]
    cost = data.costs[-1] - np.cumsum(saved)[last_of_equals] / len(data)
    distinct = turns[last_of_equals]
    return ThresholdCurve(
        thresholds=sign * between(distinct),
        accuracy=np.concatenate([[correct[:, -1].sum()], right]) / len(data),
        cost=np.concatenate([[data.costs[-1]], cost]),
    )


def _most_accurate_within(curve: ThresholdCurve, budget: float) -> int:
    affordable = curve.cost <= budget + 1e-12
    if not (0 < budget <= 1 and affordable.any()):
        raise ValueError(
            "Invalid value for argument `budget`. Expected a mean cost in (0, 1], at least that of leaving at the "
            f"first exit, {curve.cost[-1]:.4g}. Received: {budget}"
        )
    return _last_best(np.where(affordable, curve.accuracy, -np.inf))


def _cheapest_with(curve: ThresholdCurve, accuracy: float, drop: float) -> int:
    check_number("accuracy_drop", drop, 0, 100)
    return int(np.flatnonzero(curve.accuracy >= accuracy - drop / 100 - 1e-12)[-1])


def _one_for_each_exit(
    data: ExitData, curve: ThresholdCurve, budget: float | None, trade_off: float | None, measure: Measure
) -> list[float]:
    sign = _SIGN[measure]
    sureness = sign * data.features[:, :-1, EXIT_FEATURES.index(measure)]

    def found(price: float) -> tuple[NDArray[np.float64], float]:
        one = sign * curve.thresholds[_last_best(curve.accuracy - price * curve.cost)]
        return best_thresholds(sureness, data.rewards(price), data.costs, one)

    if trade_off is not None:
        thresholds = found(check_number("trade_off", trade_off, 0))[0]
    elif budget is not None:
        _most_accurate_within(curve, budget)  # refuses what no exit can meet
        low, high = 0.0, 1.0
        while found(high)[1] > budget:
            low, high = high, 4 * high
        for _ in range(16):
            middle = (low + high) / 2
            low, high = (low, middle) if found(middle)[1] <= budget else (middle, high)
        thresholds = found(high)[0]
    else:
        raise ValueError("Invalid value for argument `per_exit`. Expected False with `accuracy_drop`. Received: True")
    return [float(sign * threshold) for threshold in thresholds]


def _last_best(values: NDArray[np.float64]) -> int:
    """Index of the largest value; of equals the last, which is the cheapest."""
    return len(values) - 1 - int(np.argmax(values[::-1]))
