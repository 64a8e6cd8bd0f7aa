"""The curve of accuracy over cost."""

import pathlib
from typing import Any

LABELS = {
    "threshold": "confidence threshold",
    "entropy": "entropy threshold (BranchyNet)",
    "backward_induction": "backward induction",
    "policy_gradient": "exact policy gradient",
    "ppo": "PPO (TF-Agents)",
    "dqn": "DQN (TF-Agents)",
    "reinforce": "REINFORCE (TF-Agents)",
}


def curve(summary: dict[str, Any], path: pathlib.Path) -> None:
    """Draws every policy, the fixed exits and the static networks."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    fixed = summary["exits"]
    axes.plot([e["cost"] for e in fixed], [100 * e["accuracy"] for e in fixed], "k.:", label="one exit for all images")
    for name, label in LABELS.items():
        points = sorted((row["cost"], 100 * row["accuracy"]) for row in summary["policies"][name].values())
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, linewidth=1, label=label)
    for name, row in summary["static"].items():
        axes.plot(row["cost"], 100 * row["accuracy"], "s", color="0.4")
        axes.annotate(name, (row["cost"], 100 * row["accuracy"]), xytext=(4, -10), textcoords="offset points")
    axes.set_xlabel("mean cost, share of the whole network's MACs")
    axes.set_ylabel("test accuracy in %")
    axes.set_title("Early exits of one thin ResNet on CIFAR-10")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
