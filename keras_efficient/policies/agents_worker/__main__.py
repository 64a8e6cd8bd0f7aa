"""`python -m agents_worker DIRECTORY`: reads `task.npz` and `task.json` there, trains, writes `result.npz`.

Each line of the standard output is a JSON object: `{"iteration": i, "reward": r}`, with a `validation_reward` where the
task has validation data. All else
that TensorFlow and its friends print goes to the standard error.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

_LATE = 4  # how strongly the average of the weights leans to late iterations (Shamir and Zhang, 2013)


def main(directory: Path) -> None:
    """Trains the agent that `task.json` names and writes the average of its weights."""
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
    chain = ExitChain(task["features"], task["smoothed"], task["costs"], trade_off, *(config[name] for name in names))
    environment = tf_py_environment.TFPyEnvironment(ExitEnvironment(chain))
    trainer = AGENTS[config["agent"]](environment, {**config, "num_exits": chain.num_exits})

    prices = task["trade_offs"].astype(np.float32)
    parts = {"reward": "", **({"validation_reward": "validation_"} if "validation_correct" in task else {})}
    correct = {part: task[f"{prefix}correct"] for part, prefix in parts.items()}
    seen = {part: grid_observations(task[f"{prefix}features"], trade_off, prices) for part, prefix in parts.items()}

    def shaped(leaves: Any, part: str) -> Any:
        return leaves.reshape(len(prices), len(correct[part]), -1)

    average = trainer.layers()
    for iteration in range(config["iterations"]):
        trainer.learn(iteration / config["iterations"])
        share = (_LATE + 1) / (_LATE + 1 + iteration)
        average = moved_towards(average, trainer.layers(), share)
        line = {
            part: mean_reward(shaped(greedy(average, seen[part]), part), correct[part], task["costs"], prices)
            for part in parts
        }
        progress.write(json.dumps({"iteration": iteration + 1, **line}) + "\n")

    trainer.assign(average)
    arrays = {"leaves": shaped(trainer.leaves(seen["reward"]), "reward")}
    for i, (kernel, bias) in enumerate(merge_exit_index(average, chain.num_exits)):
        arrays[f"kernel_{i}"], arrays[f"bias_{i}"] = kernel, bias
    np.savez(directory / "result.npz", **arrays)


main(Path(sys.argv[1]))
