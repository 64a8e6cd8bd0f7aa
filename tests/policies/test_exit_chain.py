"""The decision process itself, and that it is a valid TF-Agents environment (in a process of its own)."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import keras_efficient.policies
from keras_efficient.policies.agents_worker.exit_chain import (
    CONTINUE,
    EXIT,
    ExitChain,
    grid_observations,
    mean_reward,
)

POLICIES = Path(keras_efficient.policies.__file__).parent


def make_chain(batch_size, seed, inputs=5, exits=4, trade_off=0.0, **kwargs):
    """Feature 0 is the input's number, feature 1 the exit's; "correct" is ten times the input plus the exit."""
    features = np.stack(np.meshgrid(np.arange(inputs), np.arange(exits), indexing="ij"), axis=-1).astype("float32")
    correct = 10 * np.arange(inputs)[:, None] + np.arange(exits)
    costs = np.arange(1, exits + 1) / exits
    return ExitChain(features, correct, costs, trade_off, batch_size=batch_size, seed=seed, **kwargs)


def test_going_on_shows_the_next_exit_and_earns_the_difference():
    chain = make_chain(batch_size=3, seed=0, trade_off=0.4)
    observation = chain.reset()
    inputs = observation[:, 0]
    for k in (1, 2):
        observation, reward, over = chain.step(np.full(3, CONTINUE))
        np.testing.assert_array_equal(observation[:, 0], inputs)  # the same input
        np.testing.assert_array_equal(observation[:, 1], k)  # at the exit that is decided next
        np.testing.assert_array_equal(observation[:, 2:], np.eye(4)[[k] * 3])
        np.testing.assert_allclose(reward, 1 - 0.4 * 0.25, rtol=1e-5)  # one more "correct", a quarter of the cost
        assert not over.any()


def test_leaving_ends_and_earns_nothing_more():
    chain = make_chain(batch_size=4, seed=1, trade_off=0.4)
    chain.reset()
    chain.step(np.full(4, CONTINUE))
    observation, reward, over = chain.step(np.array([EXIT, CONTINUE, EXIT, CONTINUE]))
    np.testing.assert_allclose(reward, [0, 0.9, 0, 0.9], rtol=1e-5)
    np.testing.assert_array_equal(over, [True, False, True, False])
    np.testing.assert_array_equal(observation[:, 1], [1, 2, 1, 2])


def test_a_return_is_the_reward_of_the_exit_taken_less_that_of_the_first_one_seen():
    random = np.random.default_rng(0)
    chain = make_chain(batch_size=50, seed=6, trade_off=0.7, exploring_starts=0.5)
    chain.correct = random.integers(0, 2, chain.correct.shape).astype("float32")
    start = chain.reset()[:, 1].astype(int)
    earned = np.zeros(50)
    for _ in range(3):
        observation, reward, over = chain.step(random.integers(0, 2, 50))
        earned += reward
    rewards = chain.correct[chain.inputs] - 0.7 * chain.costs
    taken = observation[:, 1].astype(int)
    assert over.all()
    np.testing.assert_allclose(earned, rewards[np.arange(50), taken] - rewards[np.arange(50), start], atol=1e-5)


def test_the_last_exit_always_leaves():
    chain = make_chain(batch_size=2, seed=2)
    chain.reset()
    for _ in range(3):
        observation, _, over = chain.step(np.full(2, CONTINUE))
    assert over.all()
    np.testing.assert_array_equal(observation[:, 1], 3)
    _, reward, over = chain.step(np.full(2, CONTINUE))
    assert not reward.any()
    assert over.all()


def test_episodes_go_through_the_inputs_equally_often():
    chain = make_chain(batch_size=3, seed=7, inputs=5)
    seen = np.concatenate([chain.reset()[:, 0] for _ in range(10)])
    np.testing.assert_array_equal(np.bincount(seen.astype(int)), 6)


def test_reset_of_some_places_leaves_the_others():
    chain = make_chain(batch_size=3, seed=3, inputs=50)
    chain.reset()
    before, _, over = chain.step(np.array([EXIT, CONTINUE, EXIT]))
    after = chain.reset(over)
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_array_equal(after[[0, 2], 1], 0)
    assert not chain.over.any()


def test_exploring_starts_cover_all_exits_but_the_last():
    chain = make_chain(batch_size=200, seed=4, exploring_starts=1.0)
    assert set(chain.reset()[:, 1]) == {0, 1, 2}


def test_every_episode_has_a_trade_off_of_its_own():
    chain = make_chain(batch_size=4000, seed=5, trade_off=(0.02, 1.0))
    observation = chain.reset()
    prices = chain.prices.copy()
    standard = observation[:, 2]
    assert (prices.min(), prices.max()) == pytest.approx((0.02, 1.0), rel=0.01)
    np.testing.assert_allclose([standard.mean(), standard.std()], [0, 1], atol=0.04)  # log-uniform, standardised
    np.testing.assert_allclose(standard, standard[0] + np.log(prices / prices[0]) * np.sqrt(12) / np.log(50), atol=1e-4)
    observation, _, _ = chain.step(np.full(4000, CONTINUE))
    np.testing.assert_array_equal(observation[:, 2], standard)  # the same at the next exit
    _, reward, _ = chain.step(np.full(4000, CONTINUE))
    np.testing.assert_allclose(reward, 1 - prices * 0.25, atol=1e-5)
    np.testing.assert_array_equal(observation[:, 3:], np.eye(4)[[1] * 4000])


def test_mean_reward():
    correct, costs = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]), np.array([0.2, 0.5, 1.0])
    leaves = np.array([[[True, True], [False, True], [False, False]], [[True, False]] * 3])
    assert mean_reward(leaves[:1], correct, costs, [0.0]) == pytest.approx((1 + 5 + 9) / 3)
    assert mean_reward(leaves[:1], correct, costs, [0.6]) == pytest.approx((1 + 5 + 9 - 0.6 * 1.7) / 3)
    both = (1 + 5 + 9 - 0.6 * 1.7) / 3, (1 + 4 + 7) / 3 - 0.1 * 0.2
    assert mean_reward(leaves, correct, costs, [0.6, 0.1]) == pytest.approx(np.mean(both))


def test_the_grid_shows_what_the_chain_shows():
    chain = make_chain(batch_size=1, seed=0, trade_off=(0.1, 1.0))
    grid = grid_observations(chain.features, (0.1, 1.0), np.float32([0.1, 0.5]))
    assert grid.shape == (2 * 5 * 3, 2 + 1 + 4)
    chain.inputs[:], chain.exits[:], chain.prices[:] = 3, 2, 0.5
    np.testing.assert_allclose(grid[1 * 15 + 3 * 3 + 2], chain.observed()[0])


ENVIRONMENT_CHECK = """
import sys
import numpy as np
sys.path.append(sys.argv[1])
from tf_agents.environments import tf_py_environment
from tf_agents.trajectories import time_step as ts
from agents_worker.exit_chain import CONTINUE, EXIT, ExitChain
from agents_worker.exit_environment import ExitEnvironment
features = np.random.default_rng(0).normal(size=(20, 3, 4)).astype("float32")
correct = np.arange(60.0).reshape(20, 3)
chain = ExitChain(features, correct, np.ones(3), 0.0, batch_size=2, seed=0)
environment = tf_py_environment.TFPyEnvironment(ExitEnvironment(chain))
first = environment.reset()
inputs = chain.inputs.copy()
assert first.is_first().numpy().all()
step = environment.step(np.array([EXIT, CONTINUE], "int32"))
assert step.step_type.numpy().tolist() == [ts.StepType.LAST, ts.StepType.MID]
assert step.discount.numpy().tolist() == [0.0, 1.0]
assert step.reward.numpy().tolist() == [0.0, 1.0]
np.testing.assert_array_equal(step.observation.numpy()[1, :4], features[inputs[1], 1])
step = environment.step(np.array([EXIT, CONTINUE], "int32"))
assert step.step_type.numpy().tolist() == [ts.StepType.FIRST, ts.StepType.LAST]
assert step.reward.numpy().tolist() == [0.0, 1.0]

import tensorflow as tf
from tf_agents.trajectories import trajectory
from agents_worker.agents import single_decisions
chain = ExitChain(features, correct, np.ones(3), 0.0, batch_size=64, seed=1, exploring_starts=0.5)
environment = tf_py_environment.TFPyEnvironment(ExitEnvironment(chain))
now, parts, random = environment.reset(), [], np.random.default_rng(0)
for _ in range(2):
    actions = random.integers(0, 2, 64).astype("int32")
    following = environment.step(actions)
    step = type("Step", (), {"action": tf.constant(actions), "info": (), "state": ()})()
    parts.append(trajectory.from_transition(now, step, following))
    now = following
experience = tf.nest.map_structure(lambda *steps: tf.stack(steps, axis=1), *parts)
batches = list(single_decisions(experience, random, 10))
assert 6 <= len(batches) <= 12
row = {features[n, k].tobytes(): (n, k) for n in range(20) for k in range(3)}
seen = set()
for made in batches:
    assert made.observation.shape == (10, 2, 7)
    assert made.is_boundary().numpy()[:, 1].all()
    assert made.is_last().numpy()[:, 0].all()
    for state, action, earned in zip(*(part.numpy()[:, 0] for part in (made.observation, made.action, made.reward))):
        n, k = row[state[:4].tobytes()]
        seen.add((n, k, action))
        assert k < 2
        assert earned == 0.0 if action == EXIT else earned in correct[n, k + 1 :] - correct[n, k]
assert len(seen) > 40
assert "keras_efficient" not in sys.modules
print("passed")
"""


@pytest.mark.skipif(importlib.util.find_spec("tf_agents") is None, reason="the extra `agents` is not installed")
def test_is_a_tf_agents_environment():
    finished = subprocess.run(
        [sys.executable, "-P", "-c", ENVIRONMENT_CHECK, str(POLICIES)],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1", "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
    )
    assert finished.stdout.strip().endswith("passed"), finished.stderr[-3000:]
