"""The Markov decision process of leaving a network, over cached features: plain NumPy, many inputs at once."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

CONTINUE, EXIT = 0, 1


class ExitChain:
    """A batch of inputs, each on its way through the exits of a network.

    The state is `(input, exit k)`, observed as the features of exit `k` followed by a one-hot exit index. Action
    `EXIT` earns `rewards[input, k]` and ends; `CONTINUE` earns 0 and leads to exit `k + 1`, whose features come next.
    At the last exit there is nothing to decide: who reaches it leaves there at once and earns its reward. Transitions
    are deterministic and the discount is 1, so a return is the reward of the exit taken.

    Args:
        features: `[N, K, F]` float, standardised by the caller.
        rewards: `[N, K]` reward of leaving at each exit.
        batch_size: Number of inputs under way at once.
        seed: Seed of the draws.
        exploring_starts: Share of the episodes that start at an exit drawn uniformly, not at the first.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        rewards: NDArray[Any],
        batch_size: int,
        seed: int,
        exploring_starts: float = 0.0,
    ) -> None:
        self.num_inputs, self.num_exits = rewards.shape
        self.observations = observations(features)
        self.rewards = rewards.astype(np.float32)
        self.batch_size = batch_size
        self.exploring_starts = exploring_starts
        self.random = np.random.default_rng(seed)
        self.inputs = np.zeros(batch_size, dtype=np.int64)
        self.exits = np.zeros(batch_size, dtype=np.int64)
        self.over = np.ones(batch_size, dtype=bool)

    def reset(self, which: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Starts new episodes, everywhere or where `which` is True; returns all observations `[B, F + K]`."""
        fresh = np.ones(self.batch_size, dtype=bool) if which is None else which
        count = int(fresh.sum())
        self.inputs[fresh] = self.random.integers(self.num_inputs, size=count)
        explores = self.random.random(count) < self.exploring_starts
        self.exits[fresh] = np.where(explores, self.random.integers(self.num_exits - 1, size=count), 0)
        self.over[fresh] = False
        return self.observations[self.inputs, self.exits]

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """One decision for every input under way; those that are over stay as they are and earn 0.

        Args:
            actions: `[B]`, `CONTINUE` or `EXIT`.

        Returns:
            Observations `[B, F + K]` (of exit `k + 1` after `CONTINUE`, of the exit taken after `EXIT`), rewards `[B]`,
            and whether each episode is over `[B]`.
        """
        under_way = ~self.over
        self.exits += under_way & (actions == CONTINUE)
        ends = under_way & ((actions == EXIT) | (self.exits == self.num_exits - 1))
        earned = np.where(ends, self.rewards[self.inputs, self.exits], np.float32(0))
        self.over |= ends
        return self.observations[self.inputs, self.exits], earned, self.over.copy()


def observations(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[N, K, F + K]`: features and the one-hot index of their exit."""
    num_inputs, num_exits, _ = features.shape
    index = np.broadcast_to(np.eye(num_exits, dtype=np.float32), (num_inputs, num_exits, num_exits))
    return np.concatenate([features.astype(np.float32), index], axis=-1)


def mean_reward(leaves: NDArray[np.bool_], rewards: NDArray[Any]) -> float:
    """What decisions `[N, K - 1]` earn on average, where `rewards` is `[N, K]`."""
    last = np.ones((len(leaves), 1), dtype=bool)
    taken = np.concatenate([leaves, last], axis=1).argmax(axis=1)
    return float(rewards[np.arange(len(rewards)), taken].mean())
