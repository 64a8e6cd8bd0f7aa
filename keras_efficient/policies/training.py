"""What the trainers of `LearnedPolicy` share: standardisation, trade-offs, validation data, a last check."""

import math
import warnings

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_efficient.policies.arguments import check_number, check_range
from keras_efficient.policies.evaluation import best_fixed_exit, evaluate
from keras_efficient.policies.exit_data import ExitData
from keras_efficient.policies.exit_policy import ExitPolicy
from keras_efficient.policies.learned_policy import spread_features

TRADE_OFF_RANGE = (0.02, 1.0)
_GRID = 7  # trade-offs at which a policy for a range is validated

Range = tuple[float, float]


def checked_goal(trade_off: float | None, trade_off_range: object) -> tuple[float | None, Range | None]:
    """A single trade-off and None, or None and the range."""
    if trade_off is not None:
        return check_number("trade_off", trade_off, 0), None
    return None, check_range("trade_off_range", TRADE_OFF_RANGE if trade_off_range is None else trade_off_range)


def validation_trade_offs(trade_off: float | None, trade_off_range: Range | None) -> list[float]:
    """The trade-offs that a policy is judged at while it is trained."""
    if trade_off_range is None:
        assert trade_off is not None
        return [trade_off]
    return [float(price) for price in np.geomspace(*trade_off_range, _GRID)]


def check_validation(data: ExitData, validation: ExitData | None) -> None:
    """Raises a `ValueError` unless `validation` is None or has the exits, costs and features of `data`."""
    if validation is None:
        return
    if validation.num_exits != data.num_exits or not np.allclose(validation.costs, data.costs):
        raise ValueError(
            "Invalid value for argument `validation`. Expected the exits and costs of `data`, "
            f"{data.costs.tolist()}. Received: {validation.costs.tolist()}"
        )
    if validation.num_features != data.num_features:
        raise ValueError(
            f"Invalid value for argument `validation`. Expected {data.num_features} features, as in `data`. "
            f"Received: {validation.num_features}"
        )


def spread(data: ExitData) -> NDArray[np.float32]:
    """`[N, K, F]` features as `LearnedPolicy` standardises them."""
    return np.asarray(ops.convert_to_numpy(spread_features(ops.convert_to_tensor(data.features))))


def standardisation(
    features: NDArray[np.float32], trade_off_range: Range | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and reciprocal deviation `[K - 1, D]` of each exit's features; 0 for one that does not vary.

    With a range there is a last column: the logarithm of a trade-off drawn log-uniformly from it.
    """
    features = features[:, :-1]
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    varies = deviation > 1e-4
    scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0)
    if trade_off_range is not None:
        low, high = np.log(trade_off_range)
        mean = np.append(mean, np.full((len(mean), 1), (low + high) / 2), axis=1)
        scale = np.append(scale, np.full((len(scale), 1), math.sqrt(12) / (high - low)), axis=1)
    return mean.astype(np.float32), scale.astype(np.float32)


def warn_if_useless(policy: ExitPolicy, data: ExitData, trade_offs: list[float]) -> None:
    """Warns where the policy earns less than the best fixed exit: at its one trade-off, or on average over several."""
    learned = float(np.mean([evaluate(policy, data, price).reward for price in trade_offs]))
    marks = [best_fixed_exit(data, price) for price in trade_offs]
    fixed = float(np.mean([result.reward for _, result in marks]))
    if learned < fixed:
        where = f"exit {marks[0][0]}" if len(marks) == 1 else "the best exit for each trade-off"
        warnings.warn(
            f"The learned policy earns {learned:.4f} on the data, less than the {fixed:.4f} of always "
            f"leaving at {where}: train for longer or on more data, or use BackwardInduction.",
            stacklevel=3,
        )
