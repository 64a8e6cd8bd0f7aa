"""Dynamic programming from the last exit back to the first, on cached data: no sampling, no gradient descent."""

from typing import Any, Literal

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_efficient.layers.exit_features import EXIT_FEATURES
from keras_efficient.policies.arguments import check_choice, check_exit_index, check_integer
from keras_efficient.policies.evaluation import evaluate
from keras_efficient.policies.exact import exact_backward_induction
from keras_efficient.policies.exit_data import ExitData
from keras_efficient.policies.exit_policy import ExitPolicy
from keras_efficient.policies.ridge import CrossFittedRidge

Basis = Literal["hinge", "step"]
_NEVER = 2.0  # a knot that no feature reaches


@keras.saving.register_keras_serializable(package="keras_efficient")
class BackwardInduction(ExitPolicy):
    """Leaves where leaving is worth more than going on, by (fitted) backward induction.

    With `R_k = correct_k - trade_off * cost_k`, the reward of leaving at exit `k`, the values are, from the last exit
    back,

        V_K = R_K;   A_k = E[R_k - V_{k+1} | features of exit k];   V_k = R_k if A_k > 0 else V_{k+1}

    and the score is the advantage `A_k`, a sum over features `x_f` and knots `t_fm` of exit `k`,

        A_k(x) = offset_k + sum_fm kernel_kfm * relu(x_f - t_kfm)       (basis "hinge")
        A_k(x) = offset_k + sum_fm kernel_kfm * [x_f >= t_kfm]          (basis "step")

    Of a running summary, hinges take each column as it is (one knot below all values).

    One regression of the difference stands for the two of "leave" and "go on": they have the same basis, and what makes
    an input hard at both exits cancels. `fit` makes a policy; a policy made by hand has all weights 0 and never leaves
    before the last exit.

    Args:
        num_exits: Number of exits of the network, at least 2.
        num_knots: Knots per feature (hinge), or one less than the number of states per exit (step).
        basis: `"hinge"` or `"step"`.
        **kwargs: `num_features` of `ExitPolicy`, and arguments of a Keras layer.

    Example:

    >>> policy = BackwardInduction.fit(held_out, trade_off=0.3)
    >>> decide(policy, test.features)
    """

    def __init__(self, num_exits: int, num_knots: int = 8, basis: Basis = "hinge", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_exits = check_integer("num_exits", num_exits, 2)
        self.num_knots = check_integer("num_knots", num_knots, 1)
        self.basis = check_choice("basis", basis, ("hinge", "step"))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = (self.num_exits - 1, self.num_features, self.num_knots)
        self.knots = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="knots")
        self.kernel = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="kernel")
        self.offset = self.add_weight(shape=shape[:1], initializer="zeros", trainable=False, name="offset")

    def call(self, features: Any, exit_index: int) -> Any:
        check_exit_index(exit_index, self.num_exits)
        if exit_index == self.num_exits - 1:
            return ops.ones_like(features[:, 0])
        self.record_macs(self.kernel.shape[1] * self.kernel.shape[2])
        distance = ops.expand_dims(features, -1) - self.knots[exit_index]
        basis = ops.relu(distance) if self.basis == "hinge" else ops.cast(distance >= 0, distance.dtype)
        return ops.sum(basis * self.kernel[exit_index], axis=(1, 2)) + self.offset[exit_index]

    def get_config(self) -> dict[str, Any]:
        own = {"num_exits": self.num_exits, "num_knots": self.num_knots, "basis": self.basis}
        return {**super().get_config(), **own}

    @classmethod
    def fit(
        cls,
        data: ExitData,
        trade_off: float,
        *,
        num_knots: int = 8,
        basis: Basis = "hinge",
        seed: int = 0,
        **kwargs: Any,
    ) -> "BackwardInduction":
        """Fits the policy that earns the most on held-out data.

        Args:
            data: `ExitData` of at least two inputs that the network was not trained on; a few hundred are enough.
            trade_off: Accuracy that one is ready to give for the cost of one full network, at least 0.
            num_knots: Knots per feature, at quantiles of the data.
            basis: `"hinge"`: ridge regression of the advantage, with `data.smoothed_correct`, on piecewise linear
                functions of confidence, entropy and margin. Its penalty is chosen, and the decisions inside `V_k` are
                made, by five-fold cross-fitting, so that an input never decides with a regression that has seen it:
                otherwise the values of late exits are too good and the policy goes on too often. `"step"`: confidence
                falls into `num_knots + 1` bins of equally many inputs at each exit, and the finite chain of these
                states is solved by `exact_backward_induction`.
            seed: Seed of the folds.
        """
        width = data.num_features if basis == "hinge" else len(EXIT_FEATURES)
        policy = cls(num_exits=data.num_exits, num_knots=num_knots, basis=basis, num_features=width, **kwargs)
        policy.build((None, width))
        if basis == "hinge":
            policy._assign(_Hinges(data, num_knots, seed).solve(trade_off))
        else:
            policy._assign(_fit_steps(data, trade_off, num_knots))
        return policy

    def _assign(self, values: "Weights") -> None:
        for weight, value in zip(self.weights, values, strict=True):
            weight.assign(value.astype(np.float32))


def trade_off_for_budget(data: ExitData, budget: float, *, basis: Basis = "hinge", seed: int = 0) -> float:
    """The smallest trade-off at which backward induction keeps the mean cost on `data` within `budget`.

    Found by bisection to 1 % of itself, for whoever thinks in cost rather than in prices: give the result to
    `BackwardInduction.fit` or `ExitPolicyTrainer`.

    Args:
        data: `ExitData` as for `BackwardInduction.fit`.
        budget: Mean cost, at least that of the first exit and at most 1.
    """
    if not data.costs[0] <= budget <= 1:
        raise ValueError(
            "Invalid value for argument `budget`. Expected a mean cost between that of leaving at the first exit, "
            f"{data.costs[0]:.4g}, and 1. Received: {budget}"
        )

    policy = BackwardInduction.fit(data, 0.0, basis=basis, seed=seed)
    hinges = _Hinges(data, policy.num_knots, seed) if basis == "hinge" else None

    def within(trade_off: float) -> bool:
        policy._assign(hinges.solve(trade_off) if hinges else _fit_steps(data, trade_off, policy.num_knots))
        return evaluate(policy, data).cost <= budget

    low, high = 0.0, 0.01
    if within(low):
        return low
    while not within(high):
        low, high = high, high * 4
        if high > 1e6:  # costs nearly equal; every policy leaves at once long before
            break
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if within(middle) else (middle, high)
    return high


Weights = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


class _Hinges:
    """Backward induction by regression on hinges; columns and their decompositions serve every trade-off."""

    def __init__(self, data: ExitData, num_knots: int, seed: int) -> None:
        if len(data) < 2:
            raise ValueError("Invalid value for argument `data`. Expected at least two inputs. Received: one")
        self.data = data
        self.knots, kernel, _ = _zeros(data.num_exits, data.num_features, num_knots)
        self.used = np.ones(kernel.shape[1:], dtype=bool)
        self.used[len(EXIT_FEATURES) :, 1:] = False
        folds = np.random.default_rng(seed).permutation(len(data)) % min(5, len(data))
        self.regressions = []
        for k in range(data.num_exits - 1):
            features = data.features[:, k].astype(np.float64)
            self.knots[k] = np.quantile(features, np.linspace(0, 1, num_knots, endpoint=False), axis=0).T
            inputs, knots = np.nonzero(self.used)
            columns = np.maximum(features[:, inputs] - self.knots[k, inputs, knots], 0.0)
            self.regressions.append(CrossFittedRidge(columns, folds))

    def solve(self, trade_off: float) -> Weights:
        kernel, offset = np.zeros_like(self.knots), np.zeros(len(self.knots))
        rewards = self.data.rewards(trade_off, smoothed=True)
        value = rewards[:, -1]
        for k in reversed(range(len(offset))):
            weights, offset[k], unseen = self.regressions[k].fit(rewards[:, k] - value)
            kernel[k][self.used] = weights
            value = np.where(unseen > 0, rewards[:, k], value)
        return self.knots, kernel, offset


def _fit_steps(data: ExitData, trade_off: float, num_knots: int) -> Weights:
    knots, kernel, offset = _zeros(data.num_exits, len(EXIT_FEATURES), num_knots)
    confidence = data.features[:, :, EXIT_FEATURES.index("confidence")]
    edges = [np.unique(np.quantile(column, np.linspace(0, 1, num_knots + 2)[1:-1])) for column in confidence.T]
    edges = [edge[edge > column.min()].astype(np.float32) for edge, column in zip(edges, confidence.T, strict=True)]
    states = [np.searchsorted(edge, column, side="right") for edge, column in zip(edges, confidence.T, strict=True)]

    sizes = [len(edge) + 1 for edge in edges]
    rewards = data.rewards(trade_off)
    inputs = [np.maximum(np.bincount(state, minlength=size), 1) for state, size in zip(states, sizes, strict=True)]
    exit_rewards = [
        np.bincount(state, weights=rewards[:, k], minlength=size) / inputs[k]
        for k, (state, size) in enumerate(zip(states, sizes, strict=True))
    ]
    transitions = [
        np.bincount(here * there_size + there, minlength=here_size * there_size).reshape(here_size, there_size)
        for here, there, here_size, there_size in zip(states, states[1:], sizes, sizes[1:], strict=False)
    ]
    solution = exact_backward_induction(exit_rewards, transitions)
    for k, continue_value in enumerate(solution.continue_values):
        advantage = np.where(np.isfinite(continue_value), exit_rewards[k] - continue_value, 0.0)
        knots[k, 0, : len(edges[k])] = edges[k]
        kernel[k, 0, : len(edges[k])] = np.diff(advantage)
        offset[k] = advantage[0]
    return knots, kernel, offset


def _zeros(num_exits: int, num_features: int, num_knots: int) -> Weights:
    shape = (num_exits - 1, num_features, num_knots)
    return np.full(shape, _NEVER), np.zeros(shape), np.zeros(num_exits - 1)
