"""Learns when to leave a network by reinforcement learning, with a TF-Agents agent on cached exit features."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from numpy.typing import NDArray

from keras_efficient.policies.agents_process import check_agents_installed, run_agents_worker
from keras_efficient.policies.arguments import check_choice, check_hidden_units, check_integer, check_number
from keras_efficient.policies.evaluation import best_fixed_exit, evaluate
from keras_efficient.policies.exit_data import ExitData
from keras_efficient.policies.exit_policy import ExitPolicy
from keras_efficient.policies.learned_policy import LearnedPolicy

Agent = Literal["ppo", "reinforce", "dqn"]
_LEARNING_RATES = {"ppo": 3e-3, "reinforce": 1e-2, "dqn": 3e-3}
_ENTROPY = 1e-3
_ROUNDING = 1e-3  # scores this close to 0 may differ in sign between two implementations


class ExitPolicyTrainer:
    """Learns a policy for the Markov decision process of leaving a multi-exit network.

    | | |
    |---|---|
    | state | features of exit `k`, and `k` |
    | actions | leave, or go on to exit `k + 1`; at the last exit every input leaves |
    | reward | `correct_k - trade_off * cost_k` on leaving at exit `k`, 0 on going on |
    | discount | 1 |

    The agent runs in a worker process with TF-Agents, which needs the extra `agents` (Python 3.11); numbers go in, a
    plain Keras layer comes out, and neither the environment variables nor the modules of this process change.
    `BackwardInduction` solves the same problem without sampling, in milliseconds: compare.

    Args:
        agent: `"ppo"` (clipped, Schulman et al. 2017), `"reinforce"` (Williams 1992, with a learned baseline) or
            `"dqn"` (double Q-learning, van Hasselt et al. 2016).
        trade_off: Accuracy that one is ready to give for the cost of one full network, at least 0.
        iterations: Rounds of collecting decisions and learning from them.
        seed: Seed of the episodes and of the networks.
        hidden_units: Widths of the policy's hidden layers.
        learning_rate: Of Adam; None for the agent's own default.
        batch_size: Inputs under way at once.
        exploring_starts: Share of the episodes that start at an exit drawn uniformly, so that late exits are
            learned even while the policy leaves early.
        verbose: 1 shows a progress bar, 0 nothing.

    Attributes:
        history: After `fit`, one value per iteration for each of `reward` and `validation_reward`.

    Example:

    >>> policy = ExitPolicyTrainer(trade_off=0.3).fit(held_out)
    >>> evaluate(policy, test, trade_off=0.3)
    """

    def __init__(
        self,
        agent: Agent = "ppo",
        *,
        trade_off: float,
        iterations: int = 100,
        seed: int = 0,
        hidden_units: Sequence[int] = (32,),
        learning_rate: float | None = None,
        batch_size: int = 256,
        exploring_starts: float = 0.5,
        verbose: int = 1,
    ) -> None:
        self.agent = check_choice("agent", agent, tuple(_LEARNING_RATES))
        self.trade_off = check_number("trade_off", trade_off, 0)
        self.iterations = check_integer("iterations", iterations, 1)
        self.seed = check_integer("seed", seed, 0)
        self.hidden_units = check_hidden_units(hidden_units)
        learning_rate = _LEARNING_RATES[agent] if learning_rate is None else learning_rate
        self.learning_rate = check_number("learning_rate", learning_rate, 1e-9, 1)
        self.batch_size = check_integer("batch_size", batch_size, 1)
        self.exploring_starts = check_number("exploring_starts", exploring_starts, 0, 1)
        self.verbose = verbose
        self.history: dict[str, list[float]] = {}

    def fit(self, data: ExitData, validation: ExitData | None = None) -> LearnedPolicy:
        """Trains the agent and returns its policy, with the weights of the iteration that did best on `validation`.

        Args:
            data: `ExitData` that the network was not trained on; a few hundred inputs are enough.
            validation: `ExitData` that chooses the iteration; a quarter of `data` is set aside where it is None.

        Raises:
            ImportError: If the extra `agents` is not installed.
            RuntimeError: If the worker process fails, with the end of its log.

        Warns:
            UserWarning: If the policy earns less on `validation` than the best fixed exit does.
        """
        check_agents_installed()
        if validation is None:
            data, validation = data.split(0.75, seed=self.seed)
        elif validation.num_exits != data.num_exits or not np.allclose(validation.costs, data.costs):
            raise ValueError(
                "Invalid value for argument `validation`. Expected the exits and costs of `data`, "
                f"{data.costs.tolist()}. Received: {validation.costs.tolist()}"
            )
        mean, scale = _standardisation(data.features)
        arrays = {
            "features": (data.features - mean) * scale,
            "rewards": data.rewards(self.trade_off),
            "validation_features": (validation.features - mean) * scale,
            "validation_rewards": validation.rewards(self.trade_off),
        }
        result = self._run(arrays)
        layers = [(result[f"kernel_{i}"], result[f"bias_{i}"]) for i in range(len(self.hidden_units) + 1)]
        policy = LearnedPolicy.from_arrays(mean[:-1], scale[:-1], layers)
        _check_same_decisions(policy, data, result["leaves"])
        self._warn_if_useless(policy, validation)
        return policy

    def _run(self, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        names = ("agent", "iterations", "seed", "hidden_units", "learning_rate", "batch_size", "exploring_starts")
        config = {**{name: getattr(self, name) for name in names}, "entropy": _ENTROPY}
        metrics = ("reward", "validation_reward")
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

    def _warn_if_useless(self, policy: LearnedPolicy, validation: ExitData) -> None:
        learned = evaluate(policy, validation, self.trade_off)
        exit_index, fixed = best_fixed_exit(validation, self.trade_off)
        assert learned.reward is not None
        assert fixed.reward is not None
        if learned.reward < fixed.reward:
            warnings.warn(
                f"The learned policy earns {learned.reward:.4f} on the validation data, less than the "
                f"{fixed.reward:.4f} of always leaving at exit {exit_index}: train for more iterations or on more "
                "data, or use BackwardInduction.",
                stacklevel=3,
            )


def _standardisation(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and reciprocal deviation `[K, F]` of each exit's features; 0 for one that does not vary."""
    deviation = features.std(axis=0)
    varies = deviation > 1e-4
    return features.mean(axis=0), np.where(varies, 1 / np.where(varies, deviation, 1), 0).astype(np.float32)


def _check_same_decisions(policy: ExitPolicy, data: ExitData, leaves: NDArray[np.bool_]) -> None:
    """The layer must decide as the agent did, but for scores within rounding of 0."""
    for k in range(data.num_exits - 1):
        scores = keras.ops.convert_to_numpy(policy(data.features[:, k], exit_index=k))
        differs = ((scores > 0) != leaves[:, k]) & (np.abs(scores) > _ROUNDING)
        if differs.any():
            raise RuntimeError(
                f"The layer made from the agent's weights decides differently on {differs.sum()} of {len(data)} "
                f"inputs at exit {k}."
            )
