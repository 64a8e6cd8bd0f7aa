"""The Markov decision process of leaving a network, over cached features: plain NumPy, many inputs at once."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONTINUE, EXIT = 0, 1
Range = tuple[float, float]


class ExitChain:
    """A batch of inputs, each on its way through the exits of a network.

    The state is `(input, exit k)`, with a trade-off that belongs to the episode. It is observed as the features of exit
    `k`, the standardised logarithm of the trade-off where there is a range of them, and a one-hot exit index. Action
    `EXIT` ends; `CONTINUE` leads to exit `k + 1`, whose features come next. At the last exit there is nothing to
    decide: who reaches it leaves there at once. Transitions are deterministic and the discount is 1.

    With `R_k = correct[input, k] - trade_off * costs[k]`, what leaving at exit `k` is worth, `CONTINUE` earns
    `R_{k+1} - R_k` and `EXIT` 0. That is the process in which the exit taken earns `R_k`, shaped by the potential `R_k`
    (Ng, Harada and Russell, 1999): a return is the reward of the exit taken less that of the exit where the episode
    began, which no decision changes, so the best policy is the same. What is right or wrong at all exits cancels
    within each input, and with it most of the noise.

    Episodes go through the inputs in shuffled order, each equally often.

    Args:
        features: `[N, K, F]` float, standardised by the caller.
        correct: `[N, K]` whether, or how surely, each exit is right.
        costs: `[K]` cost up to and including each exit.
        trade_off: A number, or the range from which one is drawn log-uniformly for each episode.
        batch_size: Number of inputs under way at once.
        seed: Seed of the draws.
        exploring_starts: Share of the episodes that start at an exit drawn uniformly, not at the first.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        correct: NDArray[Any],
        costs: NDArray[Any],
        trade_off: float | Range,
        batch_size: int,
        seed: int,
        exploring_starts: float = 0.0,
    ) -> None:
        self.num_inputs, self.num_exits = correct.shape
        self.features = features.astype(np.float32)
        self.correct = correct.astype(np.float32)
        self.costs = costs.astype(np.float32)
        self.trade_off = trade_off
        self.batch_size = batch_size
        self.exploring_starts = exploring_starts
        self.random = np.random.default_rng(seed)
        self.inputs = np.zeros(batch_size, dtype=np.int64)
        self.exits = np.zeros(batch_size, dtype=np.int64)
        self.prices = np.ones(batch_size, dtype=np.float32)
        self.over = np.ones(batch_size, dtype=bool)
        self.waiting = np.zeros(0, dtype=np.int64)

    def reset(self, which: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Starts new episodes, everywhere or where `which` is True; returns all observations `[B, D]`."""
        fresh = np.ones(self.batch_size, dtype=bool) if which is None else which
        count = int(fresh.sum())
        while len(self.waiting) < count:
            self.waiting = np.append(self.waiting, self.random.permutation(self.num_inputs))
        self.inputs[fresh], self.waiting = self.waiting[:count], self.waiting[count:]
        explores = self.random.random(count) < self.exploring_starts
        self.exits[fresh] = np.where(explores, self.random.integers(self.num_exits - 1, size=count), 0)
        self.prices[fresh] = self._drawn(count)
        self.over[fresh] = False
        return self.observed()

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
        """One decision for every input under way; those that are over stay as they are and earn 0.

        Args:
            actions: `[B]`, `CONTINUE` or `EXIT`.

        Returns:
            Observations `[B, D]` (of exit `k + 1` after `CONTINUE`, of the exit taken after `EXIT`), rewards `[B]`, and
            whether each episode is over `[B]`.
        """
        goes_on = ~self.over & (actions == CONTINUE)
        before = self._worth()
        self.exits += goes_on
        self.over |= (actions == EXIT) | (self.exits == self.num_exits - 1)
        return self.observed(), np.where(goes_on, self._worth() - before, np.float32(0)), self.over.copy()

    def _worth(self) -> NDArray[np.float32]:
        """What leaving now would earn, `[B]`."""
        return self.correct[self.inputs, self.exits] - self.prices * self.costs[self.exits]

    def observed(self) -> NDArray[np.float32]:
        """What is seen at each place of the batch, `[B, D]`."""
        return observations(
            self.features[self.inputs, self.exits], self.exits, self.num_exits, self.trade_off, self.prices
        )

    def _drawn(self, count: int) -> NDArray[np.float32]:
        if isinstance(self.trade_off, float):
            return np.full(count, self.trade_off, dtype=np.float32)
        low, high = np.log(self.trade_off)
        return np.exp(self.random.uniform(low, high, size=count)).astype(np.float32)


def observations(
    features: NDArray[np.float32],
    exits: NDArray[np.int64],
    num_exits: int,
    trade_off: float | Range,
    prices: NDArray[np.float32],
) -> NDArray[np.float32]:
    """`[B, D]` from features `[B, F]`, exits `[B]` and trade-offs `[B]`, as `ExitChain` describes."""
    parts = [features, np.eye(num_exits, dtype=np.float32)[exits]]
    if not isinstance(trade_off, float):
        low, high = np.log(trade_off)
        standard = (np.log(prices) - (low + high) / 2) * (math.sqrt(12) / (high - low))
        parts.insert(1, standard[:, None].astype(np.float32))
    return np.concatenate(parts, axis=1)


def grid_observations(
    features: NDArray[np.float32], trade_off: float | Range, prices: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What is seen of every input at every exit but the last for each of `T` prices: `[T * N * (K - 1), D]`."""
    inputs, exits = features.shape[0], features.shape[1]
    tiled = np.tile(features[:, :-1], (len(prices), 1, 1)).reshape(-1, features.shape[-1])
    index = np.tile(np.arange(exits - 1), len(prices) * inputs)
    return observations(tiled, index, exits, trade_off, np.repeat(prices, inputs * (exits - 1)))


def mean_reward(leaves: NDArray[np.bool_], correct: NDArray[Any], costs: NDArray[Any], prices: NDArray[Any]) -> float:
    """What decisions `[T, N, K - 1]` earn on average over `T` prices, where `correct` is `[N, K]`."""
    last = np.ones((*leaves.shape[:2], 1), dtype=bool)
    taken = np.concatenate([leaves, last], axis=-1).argmax(axis=-1)
    right = np.take_along_axis(np.broadcast_to(correct, (len(prices), *correct.shape)), taken[..., None], axis=-1)
    return float(np.mean(right[..., 0] - np.asarray(prices)[:, None] * costs[taken]))
