"""Learns when to leave a network by reinforcement learning, with a TF-Agents agent on cached exit features."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from keras_efficient.policies.agents_process import check_agents_installed, run_agents_worker
from keras_efficient.policies.arguments import check_choice, check_hidden_units, check_integer, check_number
from keras_efficient.policies.exit_data import ExitData
from keras_efficient.policies.learned_policy import LearnedPolicy
from keras_efficient.policies.training import (
    check_validation,
    checked_goal,
    spread,
    standardisation,
    validation_trade_offs,
    warn_if_useless,
)

Agent = Literal["ppo", "reinforce", "dqn"]
_LEARNING_RATES = {"ppo": 3e-3, "reinforce": 1e-2, "dqn": 1e-2}
_HIDDEN_UNITS = {"ppo": (32, 32), "reinforce": (32,), "dqn": (32, 32)}  # REINFORCE kills the units of two layers
_ITERATIONS = {"ppo": 30, "reinforce": 60, "dqn": 60}
_MINIBATCH = {"ppo": 2500, "reinforce": 1000, "dqn": 1000}
_WEIGHT_DECAY = {"ppo": 0.0, "reinforce": 0.0, "dqn": 0.1}  # values are a regression, which learns noise by heart
_ENTROPY = 1e-3
_ROUNDING = 1e-3  # scores this close to 0 may differ in sign between two implementations


class ExitPolicyTrainer:
    """Learns a policy for the Markov decision process of leaving a multi-exit network.

    | | |
    |---|---|
    | state | features of exit `k`, `k`, and the trade-off where there is a range of them |
    | actions | leave, or go on to exit `k + 1`; at the last exit every input leaves |
    | reward | `correct_k - trade_off * cost_k` on leaving at exit `k`, 0 on going on |
    | discount | 1 |

    The agent runs in a worker process with TF-Agents, which needs the extra `agents` (Python 3.11); numbers go in, a
    plain Keras layer comes out, and neither the environment variables nor the modules of this process change.
    `BackwardInduction` solves the same problem without sampling, in milliseconds: compare.

    Args:
        agent: `"ppo"` (clipped, Schulman et al. 2017), `"reinforce"` (Williams 1992, with a learned baseline) or
            `"dqn"` (double Q-learning, van Hasselt et al. 2016).
        trade_off: Accuracy that one is ready to give for the cost of one full network, at least 0; None for a policy
            that takes it with each request.
        trade_off_range: `(least, greatest)` of those, (0.02, 1) where None: drawn log-uniformly for each episode. Not
            read where `trade_off` is given.
        iterations: Rounds of collecting decisions and learning from them, None for the agent's own default.
        seed: Seed of the episodes and of the networks.
        hidden_units: Widths of the policy's hidden layers, None for the agent's own default.
        learning_rate: Of Adam at the beginning, None for the agent's own default; it falls to 0 along a cosine.
        batch_size: Inputs under way at once.
        exploring_starts: Share of the episodes that start at an exit drawn uniformly, so that late exits are
            learned even while the policy leaves early.
        verbose: 1 shows a progress bar, 0 nothing.

    Attributes:
        history: After `fit`, one value per iteration for `reward`, what the averaged policy earns on the data, and for
            `validation_reward` where there are validation data; the mean over seven trade-offs where there is a range.

    Example:

    >>> policy = ExitPolicyTrainer(trade_off=0.3).fit(held_out)
    >>> evaluate(policy, test, trade_off=0.3)
    >>> any_budget = ExitPolicyTrainer().fit(held_out)
    """

    def __init__(
        self,
        agent: Agent = "ppo",
        *,
        trade_off: float | None = None,
        trade_off_range: tuple[float, float] | None = None,
        iterations: int | None = None,
        seed: int = 0,
        hidden_units: Sequence[int] | None = None,
        learning_rate: float | None = None,
        batch_size: int = 2500,
        exploring_starts: float = 0.5,
        verbose: int = 1,
    ) -> None:
        self.agent = check_choice("agent", agent, tuple(_LEARNING_RATES))
        self.trade_off, self.trade_off_range = checked_goal(trade_off, trade_off_range)
        self.iterations = check_integer("iterations", _ITERATIONS[agent] if iterations is None else iterations, 1)
        self.seed = check_integer("seed", seed, 0)
        self.hidden_units = check_hidden_units(_HIDDEN_UNITS[agent] if hidden_units is None else hidden_units)
        learning_rate = _LEARNING_RATES[agent] if learning_rate is None else learning_rate
        self.learning_rate = check_number("learning_rate", learning_rate, 1e-9, 1)
        self.batch_size = check_integer("batch_size", batch_size, 1)
        self.exploring_starts = check_number("exploring_starts", exploring_starts, 0, 1)
        self.verbose = verbose
        self.history: dict[str, list[float]] = {}

    def fit(self, data: ExitData, validation: ExitData | None = None) -> LearnedPolicy:
        """Trains the agent and returns its policy, the average of its weights over late iterations.

        Nothing is set aside to choose an iteration: its rewards would differ by less than their own noise.

        Args:
            data: `ExitData` that the network was not trained on; a few hundred inputs are enough.
            validation: Further `ExitData` for `validation_reward` in `history`, or None. It chooses nothing.

        Raises:
            ImportError: If the extra `agents` is not installed.
            RuntimeError: If the worker process fails, with the end of its log.

        Warns:
            UserWarning: If the policy earns less than the best fixed exit does, on `validation` where given.
        """
        check_agents_installed()
        check_validation(data, validation)
        trade_offs = validation_trade_offs(self.trade_off, self.trade_off_range)
        mean, scale = standardisation(spread(data), self.trade_off_range)
        width = data.num_features
        last = np.zeros((1, width), np.float32)  # nothing is decided at the last exit
        shift, factor = np.append(mean[:, :width], last, axis=0), np.append(scale[:, :width], last, axis=0)
        arrays = {"costs": data.costs, "trade_offs": np.asarray(trade_offs), "smoothed": data.smoothed_correct}
        for prefix, part in (("", data), *([("validation_", validation)] if validation else [])):
            arrays[f"{prefix}features"] = (spread(part) - shift) * factor
            arrays[f"{prefix}correct"] = part.correct
        result = self._run(arrays, ("reward", "validation_reward")[: 2 if validation else 1])
        layers = [(result[f"kernel_{i}"], result[f"bias_{i}"]) for i in range(len(self.hidden_units) + 1)]
        policy = LearnedPolicy.from_arrays(mean, scale, layers, trade_off_range=self.trade_off_range)
        _check_same_decisions(policy, data, trade_offs, result["leaves"])
        warn_if_useless(policy, validation or data, trade_offs)
        return policy

    def _run(self, arrays: dict[str, NDArray[Any]], metrics: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        names = "agent iterations seed hidden_units learning_rate batch_size exploring_starts trade_off trade_off_range"
        config = {name: getattr(self, name) for name in names.split()}
        config |= {"entropy": _ENTROPY, "minibatch": _MINIBATCH[self.agent], "weight_decay": _WEIGHT_DECAY[self.agent]}
        self.history = {name: [] for name in metrics}
        bar = keras.utils.Progbar(self.iterations, stateful_metrics=metrics) if self.verbose else None
        if bar is not None:
            bar.update(0)

        def on_progress(line: dict[str, float]) -> None:
            for name in metrics:
                self.history[name].append(line[name])
            if bar is not None:
                bar.update(int(line["iteration"]), [(name, line[name]) for name in metrics])

        return run_agents_worker(config, arrays, on_progress)


def _check_same_decisions(
    policy: LearnedPolicy, data: ExitData, trade_offs: list[float], leaves: NDArray[np.bool_]
) -> None:
    """The layer must decide as the agent did `[T, N, K - 1]`, but for scores within rounding of 0."""
    for trade_off, at_price in zip(trade_offs, leaves, strict=True):
        for k in range(data.num_exits - 1):
            scores = keras.ops.convert_to_numpy(policy(data.features[:, k], exit_index=k, trade_off=trade_off))
            differs = ((scores > 0) != at_price[:, k]) & (np.abs(scores) > _ROUNDING)
            if differs.any():
                raise RuntimeError(
                    f"The layer made from the agent's weights decides differently on {differs.sum()} of {len(data)} "
                    f"inputs at exit {k}."
                )
