"""`python -m agents_worker DIRECTORY`: reads `task.npz` and `task.json` there, trains, writes `result.npz`.

Each line of the standard output is a JSON object: `{"iteration": i, "reward": r, "validation_reward": v}`. All else
that TensorFlow and its friends print goes to the standard error.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np


def main(directory: Path) -> None:
    """Trains the agent that `task.json` names and keeps the weights with the highest validation reward."""
    progress = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    config = json.loads((directory / "task.json").read_text())
    with np.load(directory / "task.npz") as arrays:
        task = dict(arrays)

    import tensorflow as tf
    import tf_keras
    from tf_agents.environments import tf_py_environment

    from .agents import AGENTS, merge_exit_index
    from .exit_chain import ExitChain, mean_reward, observations
    from .exit_environment import ExitEnvironment

    tf_keras.utils.set_random_seed(config["seed"])
    tf.config.experimental.enable_op_determinism()
    chain = ExitChain(
        task["features"], task["rewards"], config["batch_size"], config["seed"], config["exploring_starts"]
    )
    environment = tf_py_environment.TFPyEnvironment(ExitEnvironment(chain))
    trainer = AGENTS[config["agent"]](environment, {**config, "num_exits": chain.num_exits})
    validation = observations(task["validation_features"])

    best, best_reward = trainer.layers(), -np.inf
    for iteration in range(config["iterations"]):
        trainer.iterate(iteration / config["iterations"])
        reward = mean_reward(trainer.leaves(validation), task["validation_rewards"])
        if reward > best_reward:
            best, best_reward = trainer.layers(), reward
            best_leaves = trainer.leaves(chain.observations)
        line = {"iteration": iteration + 1, "validation_reward": reward}
        line["reward"] = mean_reward(trainer.leaves(chain.observations), chain.rewards)
        progress.write(json.dumps(line) + "\n")

    arrays = {"leaves": best_leaves}
    for i, (kernel, bias) in enumerate(merge_exit_index(best, chain.num_exits)):
        arrays[f"kernel_{i}"], arrays[f"bias_{i}"] = kernel, bias
    np.savez(directory / "result.npz", **arrays)


main(Path(sys.argv[1]))
