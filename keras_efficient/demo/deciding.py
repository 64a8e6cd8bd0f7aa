"""Exit policies for the trained network: made on one half of the held-out images, chosen on the other."""

import dataclasses
import warnings
from typing import Any

import numpy as np
from rich.console import Console

from keras_efficient.datasets import Dataset
from keras_efficient.demo.data import augmented
from keras_efficient.demo.settings import Recipe
from keras_efficient.models import MultiExit
from keras_efficient.policies import (
    BackwardInduction,
    ExitData,
    ExitPolicy,
    ExitPolicyTrainer,
    ThresholdPolicy,
    evaluate,
)

MOST_IMAGES = 4000  # held-out images that policies see, copies included


@dataclasses.dataclass(frozen=True)
class Choice:
    """The policies of a run.

    Attributes:
        policies: By name: `threshold`, `backward_induction` and, where TF-Agents is installed, `tf_agents`.
        chosen: Name of the one that earned the most on the choosing half, among those that take every exit.
        rewards: What each earned there, `accuracy - trade_off * cost`.
        every_exit: Whether each takes every exit for some held-out image.
        inputs: Number of held-out inputs that policies were made on, and chosen on.
        notes: One sentence per policy that could not be made.
    """

    policies: dict[str, ExitPolicy]
    chosen: str
    rewards: dict[str, float]
    every_exit: dict[str, bool]
    inputs: tuple[int, int]
    notes: tuple[str, ...]

    @property
    def policy(self) -> ExitPolicy:
        """The chosen one."""
        return self.policies[self.chosen]


def choose_policy(
    model: MultiExit, dataset: Dataset, recipe: Recipe, seed: int, iterations: int, console: Console
) -> Choice:
    """Makes every policy on one half of the validation images and picks the one that earns the most on the other.

    Both halves hold augmented copies too: a few hundred images alone leave too few mistakes to decide on. What takes no
    time to make is made again from both halves afterwards; the agent's policy stays as it was. A policy that leaves an
    exit unused is passed over if there is another one: nobody could check on real inputs what a file does there.
    """
    tuning, choosing = (_exit_data(model, *part, recipe, seed) for part in _halves(dataset, seed))
    policies = _solved(tuning, recipe.trade_off)
    notes = []
    console.print("learning when to leave, with TF-Agents")
    trainer = ExitPolicyTrainer(
        trade_off=recipe.trade_off, iterations=iterations, seed=seed, verbose=int(console.is_terminal)
    )
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            policies["tf_agents"] = trainer.fit(tuning)
        notes += [f"TF-Agents: {warning.message}" for warning in said if "learned policy" in str(warning.message)]
    except ImportError as error:
        notes.append(f"Without the policy of TF-Agents: {error}")
    except RuntimeError as error:
        notes.append(f"Without the policy of TF-Agents: {' '.join(str(error).split())[:300]}")
    rewards = {name: _reward(policy, choosing, recipe.trade_off) for name, policy in policies.items()}
    everything = _exit_data(model, dataset.x_validation, dataset.y_validation, recipe, seed)
    final = {**policies, **_solved(everything, recipe.trade_off)}
    every_exit = {name: min(evaluate(policy, everything).exit_shares) > 0 for name, policy in final.items()}
    chosen = max(final, key=lambda name: (every_exit[name], rewards[name]))
    return Choice(final, chosen, rewards, every_exit, (len(tuning), len(choosing)), tuple(notes))


def _solved(data: ExitData, trade_off: float) -> dict[str, ExitPolicy]:
    """The policies that are found without sampling, in milliseconds."""
    return {
        "threshold": ThresholdPolicy.tune(data, trade_off=trade_off, name="threshold"),
        "backward_induction": BackwardInduction.fit(data, trade_off, name="backward_induction"),
    }


def _reward(policy: ExitPolicy, data: ExitData, trade_off: float) -> float:
    reward = evaluate(policy, data, trade_off).reward
    assert reward is not None
    return reward


def _halves(dataset: Dataset, seed: int) -> list[tuple[Any, Any]]:
    order = np.random.default_rng(seed).permutation(len(dataset.x_validation))
    parts = np.array_split(order, 2)
    return [(dataset.x_validation[part], dataset.y_validation[part]) for part in parts]


def _exit_data(model: MultiExit, images: Any, labels: Any, recipe: Recipe, seed: int) -> ExitData:
    rng = np.random.default_rng(seed)
    copies = max(1, min(recipe.copies, MOST_IMAGES // len(images)))
    every = [images, *(augmented(images, recipe, rng) for _ in range(copies - 1))]
    return ExitData(**model.exit_data(np.concatenate(every), np.tile(labels, copies)))
