"""Backward induction on a finite chain of exits, solved exactly."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclasses.dataclass(frozen=True, eq=False)
class ExactSolution:
    """Optimal values and decisions in every state of a chain of `K` exits with `S_k` states at exit `k`.

    Attributes:
        values: `K` arrays `[S_k]`: what the best policy earns from each state on.
        continue_values: `K - 1` arrays `[S_k]`: what it earns if it goes on to the next exit; `-inf` in a state
            that no transition leaves.
        leave: `K` boolean arrays `[S_k]`: whether the best policy leaves; all True at the last exit.
    """

    values: tuple[NDArray[np.float64], ...]
    continue_values: tuple[NDArray[np.float64], ...]
    leave: tuple[NDArray[np.bool_], ...]


def exact_backward_induction(exit_rewards: Sequence[ArrayLike], transitions: Sequence[ArrayLike]) -> ExactSolution:
    """Solves `V_K = R_K` and `V_k = max(R_k, P_k V_{k+1})`, from the last exit back to the first.

    Args:
        exit_rewards: `K >= 1` arrays `[S_k]`: expected reward `R_k` of leaving in each state, such as the share of
            right answers minus trade-off times cost.
        transitions: `K - 1` arrays `[S_k, S_{k+1}]`: how often, or with what probability, going on leads from each
            state to each state of the next exit. Rows are divided by their sum; a state whose row is 0 was never seen
            to go on, and leaves.

    Returns:
        `ExactSolution`. A state leaves where leaving is worth at least as much as going on.

    Raises:
        ValueError: If the shapes do not fit together, or if a transition is negative or not finite.

    Example: a first exit in two states worth .9 and .2, a last exit worth .7.

    >>> exact_backward_induction([[.9, .2], [.7]], [[[1], [1]]]).leave
    (array([ True, False]), array([ True]))
    """
    rewards = [np.asarray(reward, dtype=np.float64) for reward in exit_rewards]
    counts = [np.asarray(transition, dtype=np.float64) for transition in transitions]
    _check_chain(rewards, counts)

    values = [rewards[-1]]
    leave = [np.ones(rewards[-1].shape, dtype=bool)]
    continue_values: list[NDArray[np.float64]] = []
    for reward, count in zip(rewards[-2::-1], counts[::-1], strict=True):
        total = count.sum(axis=1)
        seen = total > 0
        going_on = np.where(seen, count @ values[0] / np.where(seen, total, 1.0), -np.inf)
        leave.insert(0, reward >= going_on)
        values.insert(0, np.maximum(reward, going_on))
        continue_values.insert(0, going_on)
    return ExactSolution(tuple(values), tuple(continue_values), tuple(leave))


def _check_chain(rewards: list[NDArray[np.float64]], counts: list[NDArray[np.float64]]) -> None:
    sizes = [reward.shape for reward in rewards]
    if not rewards or any(len(size) != 1 or size[0] == 0 for size in sizes):
        raise ValueError(
            f"Invalid value for argument `exit_rewards`. Expected one array [states] per exit. Received: shapes {sizes}"
        )
    expected = [(here[0], there[0]) for here, there in itertools.pairwise(sizes)]
    if [count.shape for count in counts] != expected:
        raise ValueError(
            f"Invalid value for argument `transitions`. Expected shapes {expected}, from the states of each exit to "
            f"those of the next. Received: shapes {[count.shape for count in counts]}"
        )
    if any(not np.isfinite(count).all() or (count < 0).any() for count in counts):
        raise ValueError(
            "Invalid value for argument `transitions`. Expected finite numbers of at least 0. "
            "Received: a negative number, NaN or infinity"
        )
