"""The three TF-Agents agents, each with one hidden network for "continue" and "exit"."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras
from numpy.typing import NDArray
from tf_agents.agents.dqn import dqn_agent
from tf_agents.agents.ppo import ppo_clip_agent
from tf_agents.agents.reinforce import reinforce_agent
from tf_agents.networks import sequential
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory
from tf_agents.utils import common

from .exit_chain import CONTINUE, EXIT

_FIRST_BONUS = 0.1  # REINFORCE's entropy bonus at the beginning, on top of the one that stays
_PULL = 3e-4  # of REINFORCE's scores back to chance: it does not vanish, as the entropy does, where a way is shut

Layers = list[tuple[NDArray[np.float32], ...]]


class Trainer:
    """One agent with its environment: `learn` collects episodes and learns from them, `leaves` decides greedily."""

    epochs: int  # how often a decision is learned from

    def __init__(self, environment: Any, config: dict[str, Any]) -> None:
        self.environment = environment
        self.config = config
        self.steps = max(config["num_exits"] - 1, 2)  # the longest episode; TF-Agents wants two
        self.hidden = [tf_keras.layers.Dense(units, activation="relu") for units in config["hidden_units"]]
        self.head = tf_keras.layers.Dense(
            2, kernel_initializer=tf_keras.initializers.RandomUniform(-0.03, 0.03), name="head"
        )
        self.optimizer = tf_keras.optimizers.AdamW(config["learning_rate"], weight_decay=config["weight_decay"])
        self.agent = self.make_agent(self.optimizer)
        self.agent.initialize()
        self.train = common.function(self.agent.train)
        self.action = common.function(self.agent.collect_policy.action)
        self.greedy_action = common.function(self.agent.policy.action)
        self.random = np.random.default_rng(config["seed"])

    def learn(self, progress: float) -> None:
        """Collects episodes and learns from them. `progress` is the share of the iterations that is done."""
        self.optimizer.learning_rate.assign(self.config["learning_rate"] * (1 + math.cos(math.pi * progress)) / 2)
        collected = self.collect(self.environment.reset())
        size = min(self.config["batch_size"], self.config["minibatch"])
        for _ in range(self.epochs):
            for decisions in single_decisions(collected, self.random, size):
                self.train(decisions)

    def make_agent(self, optimizer: Any) -> Any:
        raise NotImplementedError

    def before_step(self, step: int) -> None:
        """Called before each step of collecting."""

    def specs(self) -> tuple[Any, Any]:
        return self.environment.time_step_spec(), self.environment.action_spec()

    def network(self, *layers: Any) -> Any:
        return sequential.Sequential(layers, input_spec=self.environment.observation_spec())

    def actor(self) -> Any:
        to_distribution = tf_keras.layers.Lambda(lambda logits: tfp.distributions.Categorical(logits=logits))
        return self.network(*self.hidden, self.head, to_distribution)

    def critic(self) -> Any:
        widths = self.config["hidden_units"]
        layers = [tf_keras.layers.Dense(units, activation="relu") for units in widths]
        flatten = tf_keras.layers.Lambda(lambda value: tf.squeeze(value, -1))
        return self.network(*layers, tf_keras.layers.Dense(1, kernel_initializer="zeros"), flatten)

    def collect(self, time_step: Any) -> Any:
        """Transitions of every place from `time_step` on, `[B, steps, ...]`."""
        transitions = []
        for step in range(self.steps):
            self.before_step(step)
            action = self.action(time_step)
            following = self.environment.step(action.action)
            transitions.append(trajectory.from_transition(time_step, action, following))
            time_step = following
        return tf.nest.map_structure(lambda *parts: tf.stack(parts, axis=1), *transitions)

    def leaves(self, observations: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Greedy decisions `[M]` for observations `[M, D]`."""
        action = self.greedy_action(ts.restart(tf.constant(observations), batch_size=len(observations))).action
        return np.asarray(action.numpy() == EXIT)

    def layers(self) -> Layers:
        """Kernel and bias of each dense layer of the deciding network; the last has the units "continue", "exit"."""
        return [tuple(weight.numpy() for weight in layer.weights) for layer in (*self.hidden, self.head)]

    def assign(self, layers: Layers) -> None:
        """Puts weights such as those of `layers` into the deciding network."""
        for layer, weights in zip((*self.hidden, self.head), layers, strict=True):
            layer.set_weights(weights)


class Ppo(Trainer):
    epochs = 10

    def make_agent(self, optimizer: Any) -> Any:
        return ppo_clip_agent.PPOClipAgent(
            *self.specs(),
            optimizer=optimizer,
            actor_net=self.actor(),
            value_net=self.critic(),
            importance_ratio_clipping=0.2,
            lambda_value=1.0,
            discount_factor=1.0,
            entropy_regularization=self.config["entropy"],
            num_epochs=1,  # `iterate` repeats: unrolled into one graph they take long to trace
            use_gae=True,
            normalize_rewards=False,
            normalize_observations=False,
        )


class Reinforce(Trainer):
    epochs = 1

    def make_agent(self, optimizer: Any) -> Any:
        self.bonus = tf.Variable(self.config["entropy"], trainable=False)
        return _Reinforce(
            self.bonus,
            *self.specs(),
            actor_network=self.actor(),
            optimizer=optimizer,
            value_network=self.critic(),
            # Without the stop the baseline would climb the policy's gradient too, far above the returns.
            advantage_fn=lambda returns, values: returns - tf.stop_gradient(values),
            gamma=1.0,
            normalize_returns=False,
        )

    def learn(self, progress: float) -> None:
        """The entropy bonus falls over the first half: nothing else keeps early steps from closing a way for good."""
        self.bonus.assign(self.config["entropy"] + _FIRST_BONUS * max(0.0, 1.0 - 2.0 * progress))
        super().learn(progress)


class _Reinforce(reinforce_agent.ReinforceAgent):
    """REINFORCE with an entropy bonus `[]` that changes while it learns."""

    def __init__(self, bonus: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bonus = bonus

    def entropy_regularization_loss(self, actions_distribution: Any, weights: Any = None) -> Any:
        entropy = tf.cast(actions_distribution.entropy(), tf.float32)
        logits = actions_distribution.logits_parameter()
        certainty = tf.square(logits[..., EXIT] - logits[..., CONTINUE])
        return tf.reduce_sum((_PULL * certainty - self.bonus * entropy) * weights) / tf.reduce_sum(weights)


class Dqn(Trainer):
    """Deep Q-learning from whole episodes: a random decision, greedy ones after it, and what they earned.

    Episodes are short, so a value is regressed on the return itself and not on the value of the next exit: errors of
    late exits do not add up on the way back. After one random decision the return is that of the greedy policy.
    """

    epochs = 2

    def make_agent(self, optimizer: Any) -> Any:
        self.epsilon = tf.Variable(1.0, trainable=False)
        return dqn_agent.DdqnAgent(
            *self.specs(),
            q_network=self.network(*self.hidden, self.head),
            optimizer=optimizer,
            epsilon_greedy=lambda: self.epsilon,
            gamma=1.0,
            td_errors_loss_fn=tf.math.squared_difference,
        )

    def before_step(self, step: int) -> None:
        self.epsilon.assign(1.0 if step == 0 else 0.0)


def single_decisions(experience: Any, random: np.random.Generator, size: int) -> Iterator[Any]:
    """The decisions of the first episode of each place, each once, in shuffled batches of `size`; a rest is left out.

    The discount is 1, so a decision earns the sum of the rewards from it to the end of its episode. Each one becomes an
    episode of one step, `[size, 2]` with the boundary that TF-Agents expects behind it: nothing is padded, and PPO
    normalises the advantages of decisions alone. There is at least one decision per place.
    """
    ends = experience.next_step_type.numpy() == ts.StepType.LAST
    made = np.cumsum(ends, axis=1) - ends == 0
    earned = np.cumsum((experience.reward.numpy() * made)[:, ::-1], axis=1)[:, ::-1]
    places = random.permutation(np.argwhere(made))
    for start in range(0, len(places) - size + 1, size):
        where = places[start : start + size]
        yield _one_step_episodes(experience, tf.constant(where), tf.constant(earned[tuple(where.T)]))


@tf.function
def _one_step_episodes(experience: Any, where: Any, earned: Any) -> Any:
    """`[size, 2]` from experience `[B, steps]`, the places of decisions `[size, 2]` and what they earned `[size]`."""
    twice = tf.nest.map_structure(lambda part: tf.stack([tf.gather_nd(part, where)] * 2, axis=1), experience)

    def frames(first: Any, second: Any, dtype: Any) -> Any:
        return tf.tile(tf.cast([[first, second]], dtype), [tf.shape(earned)[0], 1])

    return twice._replace(
        reward=tf.stack([earned, tf.zeros_like(earned)], axis=1),
        discount=frames(0, 1, tf.float32),
        step_type=frames(ts.StepType.FIRST, ts.StepType.LAST, tf.int32),
        next_step_type=frames(ts.StepType.LAST, ts.StepType.FIRST, tf.int32),
    )


AGENTS: dict[str, type[Trainer]] = {"ppo": Ppo, "reinforce": Reinforce, "dqn": Dqn}


def moved_towards(average: Layers, layers: Layers, share: float) -> Layers:
    """`average` after a step of `share` of the way to `layers`: what remains has less of the noise of single steps."""
    return [
        tuple(old + share * (new - old) for old, new in zip(*pair, strict=True))
        for pair in zip(average, layers, strict=True)
    ]


def greedy(layers: Layers, observations: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether a network of these weights leaves, `[M]`, for observations `[M, D]`."""
    for kernel, bias in layers[:-1]:
        observations = np.maximum(observations @ kernel + bias, 0)
    kernel, bias = layers[-1]
    values = observations @ kernel + bias
    return values[:, EXIT] > values[:, CONTINUE]


def merge_exit_index(layers: Layers, num_exits: int) -> Layers:
    """The network as `LearnedPolicy` holds it.

    The one-hot rows of the first kernel become a bias per exit but the last, and the two outputs become their
    difference, "exit" minus "continue".
    """
    kernel, bias = layers[0]
    num_features = len(kernel) - num_exits
    first = (kernel[:num_features], bias + kernel[num_features:-1])
    kernel, bias = layers[-1]
    last = (kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1])
    return [first, *layers[1:-1], last]
