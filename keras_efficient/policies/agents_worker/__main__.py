"""`python -m agents_worker DIRECTORY`: reads `task.npz` and `task.json` there, trains, writes `result.npz`.

Each line of the standard output is a JSON object: `{"iteration": i, "reward": r, "validation_reward": v}`. All else
that TensorFlow and its friends print goes to the standard error.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

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

    from .agents import AGENTS, greedy, merge_exit_index, moved_towards
    from .exit_chain import ExitChain, grid_observations, mean_reward
    from .exit_environment import ExitEnvironment

    tf_keras.utils.set_random_seed(config["seed"])
    tf.config.experimental.enable_op_determinism()
    trade_off = tuple(config["trade_off_range"]) if config["trade_off_range"] else float(config["trade_off"])
    names = ("batch_size", "seed", "exploring_starts")
    chain = ExitChain(task["features"], task["correct"], task["costs"], trade_off, *(config[name] for name in names))
    environment = tf_py_environment.TFPyEnvironment(ExitEnvironment(chain))
    trainer = AGENTS[config["agent"]](environment, {**config, "num_exits": chain.num_exits})

    seen, correct, prices = {}, {}, task["trade_offs"].astype(np.float32)
    for part, prefix in (("reward", ""), ("validation_reward", "validation_")):
        seen[part] = grid_observations(task[f"{prefix}features"], trade_off, prices)
        correct[part] = task[f"{prefix}correct"]

    def shaped(leaves: Any, part: str) -> Any:
        return leaves.reshape(len(prices), len(correct[part]), -1)

    average = trainer.layers()
    best, best_reward = average, -np.inf
    for iteration in range(config["iterations"]):
        trainer.learn(iteration / config["iterations"])
        average = moved_towards(average, trainer.layers(), max(config["averaging"], 1 / (iteration + 1)))
        line = {
            part: mean_reward(shaped(greedy(average, seen[part]), part), correct[part], task["costs"], prices)
            for part in seen
        }
        if line["validation_reward"] >= best_reward:
            best, best_reward = average, line["validation_reward"]
        progress.write(json.dumps({"iteration": iteration + 1, **line}) + "\n")

    trainer.assign(best)
    arrays = {"leaves": shaped(trainer.leaves(seen["validation_reward"]), "validation_reward")}
    for i, (kernel, bias) in enumerate(merge_exit_index(best, chain.num_exits)):
        arrays[f"kernel_{i}"], arrays[f"bias_{i}"] = kernel, bias
    np.savez(directory / "result.npz", **arrays)


main(Path(sys.argv[1]))
