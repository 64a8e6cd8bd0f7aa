"""One threshold for each exit, each the best one while the others stay."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def best_thresholds(
    sureness: NDArray[np.float32], rewards: Array, costs: Array, start: float, rounds: int = 20
) -> tuple[Array, float]:
    """Raises the mean reward by moving one threshold at a time, the last first, until none moves.

    With the others as they are, an input that reaches exit `k` earns `rewards[k]` there or what the later thresholds
    make of it, so all thresholds of the exit are compared by one cumulative sum over the sorted inputs.

    Args:
        sureness: `[N, K - 1]`; an input leaves where it is above the threshold.
        rewards: `[N, K]` reward of leaving at each exit.
        costs: `[K]`.
        start: The threshold of every exit at the beginning.
        rounds: Most passes over the exits.

    Returns:
        `[K - 1]` thresholds, and the mean cost of the exits taken.
    """
    count, decisions = sureness.shape
    thresholds = np.full(decisions, start, dtype=np.float64)
    for _ in range(rounds):
        moved = False
        later = rewards[:, -1]
        reached = _reached(sureness, thresholds)
        for k in reversed(range(decisions)):
            here = reached[:, k]
            gain = np.where(here, rewards[:, k] - later, 0.0)
            order = np.argsort(-sureness[:, k], kind="stable")
            turns, total = sureness[order, k], np.cumsum(gain[order])
            last_of_equals = np.append(turns[1:] != turns[:-1], True)
            values = np.concatenate([[0.0], total[last_of_equals]])
            best = len(values) - 1 - int(np.argmax(values[::-1]))  # of equals the cheapest
            if values[best] > gain[sureness[:, k] > thresholds[k]].sum() + 1e-9:
                thresholds[k] = between(turns[last_of_equals])[best]
                moved = True
            later = np.where(sureness[:, k] > thresholds[k], rewards[:, k], later)
        if not moved:
            break
    leaves = np.column_stack([sureness > thresholds, np.ones(count, dtype=bool)])
    return thresholds, float(costs[leaves.argmax(axis=1)].mean())


def _reached(sureness: NDArray[np.float32], thresholds: Array) -> NDArray[np.bool_]:
    """`[N, K - 1]`: whether an input passes all exits before."""
    passed = np.cumsum(sureness > thresholds, axis=1) == 0
    return np.column_stack([np.ones(len(sureness), dtype=bool), passed[:, :-1]])


def between(distinct: NDArray[np.float32]) -> NDArray[np.float64]:
    """Thresholds above all of the falling float32 numbers, between each two neighbours, and below all.

    Float32 itself, and never the upper neighbour, so that `value > threshold` is exact where the policy runs.
    """
    middle = (distinct[:-1] + distinct[1:]) / np.float32(2)
    middle = np.where(middle < distinct[:-1], middle, distinct[1:])
    above = distinct[:1]  # nothing is above the largest
    below = distinct[-1:] - np.float32(1)
    return np.concatenate([above, middle, below]).astype(np.float64)
