"""The decision process itself, and that it is a valid TF-Agents environment (in a process of its own)."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import keras_efficient.policies
from keras_efficient.policies.agents_worker.exit_chain import CONTINUE, EXIT, ExitChain, mean_reward, observations

POLICIES = Path(keras_efficient.policies.__file__).parent


def make_features(inputs=5, exits=4):
    """Feature 0 is the input's number, feature 1 the exit's."""
    return np.stack(np.meshgrid(np.arange(inputs), np.arange(exits), indexing="ij"), axis=-1).astype("float32")


def make_rewards(inputs=5, exits=4):
    return np.arange(inputs)[:, None] + 0.1 * np.arange(exits)


def test_going_on_shows_the_next_exit_and_earns_nothing():
    chain = ExitChain(make_features(), make_rewards(), batch_size=3, seed=0)
    observation = chain.reset()
    inputs = observation[:, 0]
    for k in (1, 2):
        observation, reward, over = chain.step(np.full(3, CONTINUE))
        np.testing.assert_array_equal(observation[:, 0], inputs)  # the same input
        np.testing.assert_array_equal(observation[:, 1], k)  # at the exit that is decided next
        np.testing.assert_array_equal(observation[:, 2:], np.eye(4)[[k] * 3])
        assert not reward.any()
        assert not over.any()


def test_leaving_earns_the_reward_of_the_exit_whose_features_were_seen():
    chain = ExitChain(make_features(), make_rewards(), batch_size=4, seed=1)
    inputs = chain.reset()[:, 0]
    chain.step(np.full(4, CONTINUE))
    observation, reward, over = chain.step(np.array([EXIT, CONTINUE, EXIT, CONTINUE]))
    np.testing.assert_allclose(reward, np.where([1, 0, 1, 0], inputs + 0.1, 0), rtol=1e-6)
    np.testing.assert_array_equal(over, [True, False, True, False])
    np.testing.assert_array_equal(observation[:, 1], [1, 2, 1, 2])


def test_the_last_exit_always_leaves():
    chain = ExitChain(make_features(), make_rewards(), batch_size=2, seed=2)
    inputs = chain.reset()[:, 0]
    for _ in range(3):
        observation, reward, over = chain.step(np.full(2, CONTINUE))
    np.testing.assert_allclose(reward, inputs + 0.3, rtol=1e-6)
    assert over.all()
    np.testing.assert_array_equal(observation[:, 1], 3)
    _, reward, over = chain.step(np.full(2, EXIT))
    assert not reward.any()
    assert over.all()


def test_reset_of_some_places_leaves_the_others():
    chain = ExitChain(make_features(50), make_rewards(50), batch_size=3, seed=3)
    chain.reset()
    before, _, over = chain.step(np.array([EXIT, CONTINUE, EXIT]))
    after = chain.reset(over)
    np.testing.assert_array_equal(after[1], before[1])
    np.testing.assert_array_equal(after[[0, 2], 1], 0)
    assert not chain.over.any()


def test_exploring_starts_cover_all_exits_but_the_last():
    chain = ExitChain(make_features(), make_rewards(), batch_size=200, seed=4, exploring_starts=1.0)
    assert set(chain.reset()[:, 1]) == {0, 1, 2}


def test_mean_reward():
    rewards = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    assert mean_reward(np.array([[True, True], [False, True], [False, False]]), rewards) == pytest.approx(
        (1 + 5 + 9) / 3
    )


def test_observations_keep_the_features():
    np.testing.assert_array_equal(observations(make_features())[..., :2], make_features())


ENVIRONMENT_CHECK = """
import sys
import numpy as np
sys.path.append(sys.argv[1])
from tf_agents.environments import tf_py_environment
from tf_agents.trajectories import time_step as ts
from agents_worker.exit_chain import CONTINUE, EXIT, ExitChain
from agents_worker.exit_environment import ExitEnvironment
features = np.random.default_rng(0).normal(size=(20, 3, 4)).astype("float32")
chain = ExitChain(features, np.arange(60.0).reshape(20, 3), batch_size=2, seed=0)
environment = tf_py_environment.TFPyEnvironment(ExitEnvironment(chain))
first = environment.reset()
inputs = chain.inputs.copy()
assert first.is_first().numpy().all()
step = environment.step(np.array([EXIT, CONTINUE], "int32"))
assert step.step_type.numpy().tolist() == [ts.StepType.LAST, ts.StepType.MID]
assert step.discount.numpy().tolist() == [0.0, 1.0]
assert step.reward.numpy().tolist() == [chain.rewards[inputs[0], 0], 0.0]
np.testing.assert_array_equal(step.observation.numpy()[1, :4], features[inputs[1], 1])
step = environment.step(np.array([EXIT, EXIT], "int32"))
assert step.step_type.numpy().tolist() == [ts.StepType.FIRST, ts.StepType.LAST]
assert step.reward.numpy().tolist() == [0.0, chain.rewards[inputs[1], 1]]
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
