"""The exact policy gradient: what a policy earns on cached data is a differentiable function of its weights."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_efficient.policies.arguments import check_hidden_units, check_integer, check_number
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

Tensor = Any
_IMPOSSIBLE = -80.0  # a logarithm whose exponential is 0 beside 1
_ROUND = 20  # least steps between two lines of `history`
_METRICS = {"loss": "reward", "val_loss": "validation_reward"}  # what Keras calls them, and what they are
_BEYOND = 0.1  # of the range of trade-offs, in logarithms, on either side


class PolicyGradient:
    """Learns a policy by gradient ascent on the reward itself, without sampling decisions.

    With `h_k = sigmoid(score_k)` the probability of leaving at exit `k` once it is reached, `h_K = 1`, and
    `R_k = correct_k - trade_off * cost_k`, what a random policy earns from exit `s` on is

        P_sk = h_k prod_{s<=j<k} (1 - h_j);   J_s = E[sum_{k>=s} P_sk R_k]

    because an input goes from exit to exit in one way only. `J_0`, mixed with the mean of all `J_s`, and an entropy
    bonus that falls to 0 over the first half of the training, are differentiated exactly and climbed with Adam.
    Decisions are made greedily afterwards: an input leaves where its score is above 0. REINFORCE follows the same
    gradient with the noise of sampled decisions.

    Args:
        trade_off: Accuracy that one is ready to give for the cost of one full network, at least 0; None for a policy
            that takes it with each request.
        trade_off_range: `(least, greatest)` of those, (0.02, 1) where None: drawn log-uniformly for each input of each
            step. Not read where `trade_off` is given.
        iterations: Steps of the optimiser, about so many.
        batch_size: Inputs per step.
        learning_rate: Of Adam at the beginning; it falls to 0 along a cosine.
        entropy: Weight of the entropy bonus at the beginning.
        exploring_starts: Weight of the mean of all `J_s`; the rest is that of `J_0`. Without it, late exits are hardly
            reached at the beginning, and the policy stays with the best fixed exit.
        weight_decay: Of AdamW; the guard against learning a small data set by heart.
        hidden_units: Widths of the policy's hidden layers.
        seed: Seed of weights, order and trade-offs.
        verbose: 1 shows a progress bar, 0 nothing.

    Attributes:
        history: After `fit`, one value per round of some steps for `reward` (of training, entropy bonus included) and,
            where there are validation data, `validation_reward`, both of the random policy.

    Example:

    >>> policy = PolicyGradient(trade_off=0.3).fit(held_out)
    >>> any_budget = PolicyGradient().fit(held_out)
    >>> evaluate(any_budget, test, trade_off=0.1)
    """

    def __init__(
        self,
        trade_off: float | None = None,
        *,
        trade_off_range: tuple[float, float] | None = None,
        iterations: int = 800,
        batch_size: int = 256,
        learning_rate: float = 2e-2,
        entropy: float = 0.05,
        exploring_starts: float = 0.5,
        weight_decay: float = 1e-2,
        hidden_units: Sequence[int] = (32,),
        seed: int = 0,
        verbose: int = 1,
    ) -> None:
        self.trade_off, self.trade_off_range = checked_goal(trade_off, trade_off_range)
        self.iterations = check_integer("iterations", iterations, 1)
        self.batch_size = check_integer("batch_size", batch_size, 1)
        self.learning_rate = check_number("learning_rate", learning_rate, 1e-9, 1)
        self.entropy = check_number("entropy", entropy, 0)
        self.exploring_starts = check_number("exploring_starts", exploring_starts, 0, 1)
        self.weight_decay = check_number("weight_decay", weight_decay, 0)
        self.hidden_units = check_hidden_units(hidden_units)
        self.seed = check_integer("seed", seed, 0)
        self.verbose = verbose
        self.history: dict[str, list[float]] = {}

    def fit(self, data: ExitData, validation: ExitData | None = None) -> LearnedPolicy:
        """Trains and returns a policy, as it is after the last step.

        Nothing is set aside to choose a step: their rewards would differ by less than their own noise.

        Args:
            data: `ExitData` that the network was not trained on.
            validation: Further `ExitData` for `validation_reward` in `history`, or None. It chooses nothing.

        Warns:
            UserWarning: If the policy earns less than the best fixed exit does, on `validation` where given.
        """
        check_validation(data, validation)
        trade_offs = validation_trade_offs(self.trade_off, self.trade_off_range)
        policy = self._new_policy(data)
        times = -(-_ROUND * self.batch_size // len(data))  # every input equally often in a round
        steps = -(-times * len(data) // self.batch_size)
        rounds = max(1, round(self.iterations / steps))
        random = np.random.default_rng(self.seed)
        order = np.concatenate([random.permutation(len(data)) for _ in range(times)])
        model = _Objective(policy, data.costs, self.entropy, self.exploring_starts, rounds * steps, self.seed)
        decay = keras.optimizers.schedules.CosineDecay(self.learning_rate, rounds * steps)
        model.compile(keras.optimizers.AdamW(decay, weight_decay=self.weight_decay))
        found = model.fit(
            *_arrays(data, data.smoothed_correct, trade_offs[:1], order),
            validation_data=validation and _arrays(validation, validation.correct, trade_offs),
            validation_batch_size=4096,
            epochs=rounds,
            batch_size=self.batch_size,
            shuffle=False,
            callbacks=[_Bar(rounds)] if self.verbose else [],
            verbose=0,
        )
        self.history = {
            name: [-value for value in found.history[key]] for key, name in _METRICS.items() if key in found.history
        }
        warn_if_useless(policy, validation or data, trade_offs)
        return policy

    def _new_policy(self, data: ExitData) -> LearnedPolicy:
        policy = LearnedPolicy(
            num_exits=data.num_exits,
            hidden_units=self.hidden_units,
            num_features=data.num_features,
            trade_off_range=self.trade_off_range,
        )
        policy.build((None, data.num_features))
        mean, scale = standardisation(spread(data), self.trade_off_range)
        policy.mean.assign(mean)
        policy.scale.assign(scale)
        random = np.random.default_rng(self.seed)
        for i, kernel in enumerate(policy.kernels):
            deviation = np.sqrt(2 / kernel.shape[0]) if i + 1 < len(policy.kernels) else 0.01
            kernel.assign(random.normal(scale=deviation, size=kernel.shape))
        return policy


class _Objective(keras.Model):
    """From features, correctness and trade-offs to what each input loses: `-J`, when validated `-J_0`."""

    def __init__(
        self, policy: LearnedPolicy, costs: Any, entropy: float, exploring_starts: float, steps: int, seed: int
    ) -> None:
        super().__init__(name="objective")
        self.policy = policy
        self.costs = np.asarray(costs, "float32")
        self.entropy = entropy
        exits = len(self.costs)
        self.starts = np.append(np.full(exits - 1, exploring_starts / (exits - 1), "float32"), np.float32(0))
        self.starts[0] += 1 - exploring_starts
        self.steps = steps
        self.seed = keras.random.SeedGenerator(seed)
        self.step = self.add_weight(shape=(), initializer="zeros", trainable=False, name="step")
        self.built = True

    def call(self, inputs: dict[str, Tensor], training: bool | None = None) -> Tensor:
        trade_off = inputs["trade_off"]
        if training and self.policy.takes_trade_off:
            trade_off = self._drawn(ops.shape(trade_off))
        scores = self.policy.scores(inputs["features"], trade_off if self.policy.takes_trade_off else None)
        rewards = inputs["correct"] - trade_off[:, None] * self.costs
        log_share = log_exit_shares(scores)
        share = ops.exp(log_share)
        earned = ops.sum(share * rewards[:, None], axis=-1)
        if not training:
            return -earned[:, 0]
        bonus = self.entropy * ops.maximum(0.0, 1.0 - 2.0 * self.step / self.steps)
        self.step.assign(self.step + 1)
        uncertain = -ops.sum(share * ops.maximum(log_share, _IMPOSSIBLE), axis=-1)
        return -ops.sum((earned + bonus * uncertain) * self.starts, axis=-1)

    def _drawn(self, shape: Any) -> Tensor:
        """Log-uniform, from a little beyond the range, so that its ends are not learned from one side only."""
        assert self.policy.trade_off_range is not None
        low, high = np.log(self.policy.trade_off_range)
        beyond = _BEYOND * (high - low)
        return ops.exp(keras.random.uniform(shape, low - beyond, high + beyond, seed=self.seed))

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        return ops.mean(y_pred)


def log_exit_shares(scores: Tensor) -> Tensor:
    """`log P_sk` `[B, K, K]`, very negative where `k < s`, for scores `[B, K - 1]` with `h = sigmoid(score)`."""
    leave, stay = -ops.softplus(-scores), -ops.softplus(scores)
    last = ops.zeros_like(scores[:, :1])
    passed = ops.concatenate([last, ops.cumsum(stay, axis=-1)], axis=-1)
    exits = scores.shape[1] + 1
    before = np.tril(np.full((exits, exits), _IMPOSSIBLE, "float32"), -1)
    between = ops.minimum(passed[:, None] - passed[:, :, None], 0.0)
    return between + ops.concatenate([leave, last], axis=-1)[:, None] + before


def _arrays(
    data: ExitData, correct: Any, trade_offs: list[float], order: Any = slice(None)
) -> tuple[dict[str, Any], Any]:
    """Inputs of `_Objective`, in some order, once for each trade-off, and targets that it does not read."""
    times = len(trade_offs)
    features = np.tile(spread(data)[order], (times, 1, 1))
    count = len(features) // times
    arrays = {
        "features": features,
        "correct": np.tile(correct.astype("float32")[order], (times, 1)),
        "trade_off": np.repeat(np.asarray(trade_offs, "float32"), count),
    }
    return arrays, np.zeros((times * count, 1), "float32")


class _Bar(keras.callbacks.Callback):
    """One progress bar over all rounds."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.bar = keras.utils.Progbar(rounds, stateful_metrics=tuple(_METRICS.values()))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.bar.update(epoch + 1, [(name, -logs[key]) for key, name in _METRICS.items() if key in logs])
