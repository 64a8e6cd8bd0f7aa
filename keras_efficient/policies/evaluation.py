"""What a policy earns on cached data, and the two marks to hold it against: the best fixed exit and the oracle."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_efficient.policies.arguments import check_integer, check_number
from keras_efficient.policies.exit_data import ExitData
from keras_efficient.policies.exit_policy import ExitPolicy, decide


@dataclasses.dataclass(frozen=True)
class PolicyResult:
    """Outcome of a policy on `ExitData`.

    Attributes:
        accuracy: Share of inputs classified right at the exit they take.
        cost: Mean cost of the exits taken; 1 is the whole network.
        reward: `accuracy - trade_off * cost`, or None where no trade-off was given.
        exit_shares: Share of the inputs that takes each exit; they sum to 1.
    """

    accuracy: float
    cost: float
    reward: float | None
    exit_shares: tuple[float, ...]


def evaluate(
    policy: ExitPolicy, data: ExitData, trade_off: float | None = None, max_exit: ArrayLike | None = None
) -> PolicyResult:
    """Runs a policy over cached data, all inputs at once.

    Args:
        policy: Any exit policy.
        data: `ExitData` that the policy was not tuned on.
        trade_off: Price of one full network in accuracy; gives the result a reward, and a policy that takes a trade-off
            decides for it.
        max_exit: Last exit that an input may take, an integer or `[N]`; None for no cap.
    """
    return evaluate_exits(exits_taken(policy, data, trade_off, max_exit), data, trade_off)


def exits_taken(
    policy: ExitPolicy, data: ExitData, trade_off: float | None = None, max_exit: ArrayLike | None = None
) -> NDArray[np.int64]:
    """`[N]` exits; the trade-off goes to a policy that takes it, and to no other."""
    return decide(policy, data.features, trade_off if getattr(policy, "takes_trade_off", False) else None, max_exit)


def evaluate_exits(exit_index: ArrayLike, data: ExitData, trade_off: float | None = None) -> PolicyResult:
    """The result of leaving at the given exits, `[N]` integers in `[0, K)`."""
    taken = np.asarray(exit_index)
    valid = taken.shape == (len(data),) and np.issubdtype(taken.dtype, np.integer)
    if not valid or taken.min() < 0 or taken.max() >= data.num_exits:
        raise ValueError(
            f"Invalid value for argument `exit_index`. Expected {len(data)} integers in [0, {data.num_exits}). "
            f"Received: shape {taken.shape}, dtype {taken.dtype}"
        )
    counts = np.bincount(taken, minlength=data.num_exits)
    accuracy = float(np.mean(data.correct[np.arange(len(data)), taken]))
    cost = float(counts @ data.costs / len(data))
    reward = None if trade_off is None else float(_earned(data.rewards(trade_off), taken).mean())
    return PolicyResult(accuracy, cost, reward, tuple(float(share) for share in counts / len(data)))


def best_fixed_exit(data: ExitData, trade_off: float) -> tuple[int, PolicyResult]:
    """The single exit with the highest mean reward (the cheaper one of equals), and its result.

    A policy that does not beat it spends its decisions for nothing: a static network would do.
    """
    exit_index = int(data.rewards(trade_off).mean(axis=0).argmax())
    return exit_index, evaluate_exits(np.full(len(data), exit_index), data, trade_off)


def oracle(data: ExitData, trade_off: float) -> PolicyResult:
    """The result of a policy that knows the labels: the highest reward that any policy can reach on this data."""
    return evaluate_exits(data.rewards(trade_off).argmax(axis=1), data, trade_off)


def paired_bootstrap(
    policy_a: ExitPolicy,
    policy_b: ExitPolicy,
    data: ExitData,
    trade_off: float,
    samples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float, float]:
    """How much more one policy earns than another on the same inputs, with a bootstrap interval.

    Inputs are drawn with replacement, both policies on the same ones, so that what is hard for both cancels
    (percentile interval, Efron 1979). The difference is beyond chance where the interval leaves out 0.

    Args:
        policy_a: One policy.
        policy_b: The other.
        data: `ExitData` that neither was made on.
        trade_off: Price of one full network in accuracy; a policy that takes a trade-off decides for it.
        samples: Number of draws of `N` inputs.
        seed: Seed of the draws.
        confidence: Share of the draws inside the interval.

    Returns:
        Mean difference of the rewards, a minus b, and the ends of the interval.
    """
    check_integer("samples", samples, 1)
    check_number("confidence", confidence, 0, 1)
    rewards = data.rewards(trade_off)
    taken = [exits_taken(policy, data, trade_off) for policy in (policy_a, policy_b)]
    difference = _earned(rewards, taken[0]) - _earned(rewards, taken[1])
    random = np.random.default_rng(seed)
    step = max(1, 1_000_000 // len(data))
    means = [
        difference[random.integers(len(data), size=(min(step, samples - start), len(data)))].mean(axis=1)
        for start in range(0, samples, step)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(difference.mean()), float(low), float(high)


def _earned(rewards: NDArray[np.float64], taken: NDArray[np.int64]) -> NDArray[np.float64]:
    return rewards[np.arange(len(rewards)), taken]
