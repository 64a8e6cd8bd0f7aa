"""Exit policies for the trained network: made on one half of the held-out images, chosen on the other."""

import dataclasses
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
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
    decide,
    evaluate,
    threshold_curve,
    trade_off_for_budget,
)

MOST_IMAGES = 4000  # held-out images that policies see, copies included
SIMPLEST = "threshold"
LEAST_TRADE_OFF = 0.005  # with no price at all an agent never leaves


@dataclasses.dataclass(frozen=True)
class Choice:
    """The policies of a run.

    Attributes:
        policies: By name: `threshold`, `backward_induction` and, where TF-Agents is installed, `tf_agents`.
        chosen: Name of the one to deploy.
        rewards: What each earned on the choosing half, `accuracy - trade_off * cost`.
        every_exit: Whether each takes every exit for some held-out image.
        trade_off: Accuracy given for the cost of one whole network, at which backward induction keeps to the budget.
        inputs: Number of held-out inputs that policies were made on, and chosen on.
        notes: One sentence per policy that could not be made or is no good.
    """

    policies: dict[str, ExitPolicy]
    chosen: str
    rewards: dict[str, float]
    every_exit: dict[str, bool]
    trade_off: float
    inputs: tuple[int, int]
    notes: tuple[str, ...]

    @property
    def policy(self) -> ExitPolicy:
        """The chosen one."""
        return self.policies[self.chosen]


def choose_policy(
    model: MultiExit, dataset: Dataset, recipe: Recipe, seed: int, iterations: int, console: Console
) -> Choice:
    """Makes every policy for one budget on one half of the validation images, and chooses on the other half.

    The threshold is deployed unless another policy earns more there by over one standard error. Both halves hold
    augmented copies too: a few hundred images alone leave too few mistakes to decide on. What takes no time to make is
    made again from both halves afterwards; the agent's policy stays as it was. A policy that leaves an exit unused is
    passed over: nobody could check on real inputs what a file does there.
    """
    halves = _halves(dataset, seed)
    tuning, choosing = (_exit_data(model, *part, recipe, seed) for part in halves)
    trade_off = max(LEAST_TRADE_OFF, trade_off_for_budget(tuning, _affordable(tuning, recipe)))
    policies = _solved(tuning, recipe)
    notes = []
    console.print("learning when to leave, with TF-Agents")
    trainer = ExitPolicyTrainer(trade_off=trade_off, iterations=iterations, seed=seed, verbose=int(console.is_terminal))
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            policies["tf_agents"] = trainer.fit(tuning)
        notes += [f"TF-Agents: {warning.message}" for warning in said if "learned policy" in str(warning.message)]
    except ImportError as error:
        notes.append(f"Without the policy of TF-Agents: {error}")
    except RuntimeError as error:
        notes.append(f"Without the policy of TF-Agents: {' '.join(str(error).split())[:300]}")
    earned = {name: _per_image(policy, choosing, trade_off, len(halves[1][0])) for name, policy in policies.items()}
    everything = _exit_data(model, dataset.x_validation, dataset.y_validation, recipe, seed)
    final = {**policies, **_solved(everything, recipe)}
    every_exit = {name: min(evaluate(policy, everything).exit_shares) > 0 for name, policy in final.items()}
    return Choice(
        policies=final,
        chosen=choose(earned, every_exit),
        rewards={name: float(values.mean()) for name, values in earned.items()},
        every_exit=every_exit,
        trade_off=trade_off,
        inputs=(len(tuning), len(choosing)),
        notes=tuple(notes),
    )


def choose(earned: dict[str, NDArray[np.float64]], every_exit: dict[str, bool]) -> str:
    """The threshold, unless another policy earns more by over one standard error of the difference.

    Args:
        earned: `[N]` reward per image, by policy.
        every_exit: Whether a policy takes every exit; the others are passed over while there is one that does.
    """
    usable = [name for name in earned if every_exit[name]] or list(earned)
    best = SIMPLEST if SIMPLEST in usable else usable[0]
    for name in usable:
        more = earned[name] - earned[best]
        if more.mean() > more.std() / np.sqrt(len(more)):
            best = name
    return best


def threshold_for_budget(data: ExitData, budget: float) -> ThresholdPolicy:
    """The threshold on confidence that spends as much of a mean cost as it can.

    With few mistakes to tune on, this is surer than the threshold that makes the fewest of them.
    """
    curve = threshold_curve(data)
    first = int(np.flatnonzero(curve.cost <= budget)[0])
    return ThresholdPolicy(float(curve.thresholds[first]), name="threshold")


def _solved(data: ExitData, recipe: Recipe) -> dict[str, ExitPolicy]:
    """The policies that are found without sampling, in milliseconds."""
    budget = _affordable(data, recipe)
    trade_off = max(LEAST_TRADE_OFF, trade_off_for_budget(data, budget))
    return {
        "threshold": threshold_for_budget(data, budget),
        "backward_induction": BackwardInduction.fit(data, trade_off, name="backward_induction"),
    }


def _affordable(data: ExitData, recipe: Recipe) -> float:
    """The recipe's mean cost, or a little more than that of the first exit where that is more."""
    return float(min(1.0, max(recipe.exit_budget, 1.05 * data.costs[0])))


def _per_image(policy: ExitPolicy, data: ExitData, trade_off: float, images: int) -> NDArray[np.float64]:
    """`[images]` mean reward of each image over its augmented copies, which stand one set behind the other."""
    rewards = data.rewards(trade_off)[np.arange(len(data)), decide(policy, data.features)]
    return np.asarray(rewards.reshape(-1, images).mean(axis=0))


def _halves(dataset: Dataset, seed: int) -> list[tuple[Any, Any]]:
    order = np.random.default_rng(seed).permutation(len(dataset.x_validation))
    parts = np.array_split(order, 2)
    return [(dataset.x_validation[part], dataset.y_validation[part]) for part in parts]


def _exit_data(model: MultiExit, images: Any, labels: Any, recipe: Recipe, seed: int) -> ExitData:
    rng = np.random.default_rng(seed)
    copies = max(1, min(recipe.copies, MOST_IMAGES // len(images)))
    every = [images, *(augmented(images, recipe, rng) for _ in range(copies - 1))]
    return ExitData(**model.exit_data(np.concatenate(every), np.tile(labels, copies)))
