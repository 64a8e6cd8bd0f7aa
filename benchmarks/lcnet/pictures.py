"""Accuracy over cost, and the images that are cheap and dear."""

import pathlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_efficient import datasets

SHOWN = 10


def curve(summary: dict[str, Any], path: pathlib.Path) -> None:
    """Draws the LC-Nets over their budgets, and the rivals."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    networks, plan = summary["networks"], summary["plan"]
    compared = f"lc_{plan['target']:g}"
    further = {name: row for name, row in networks.items() if name.startswith("lc_") and name != compared}
    points = sorted((row["share"], 100 * row["accuracy"]) for row in further.values())
    if points:
        epochs = plan["short_gated"] + plan["short_fine"]
        axes.plot(*zip(*points, strict=True), "o-", label=f"LC-Net, {epochs} epochs with gates")
    labels = {name: name.replace("_", " ") for name in networks if name not in further}
    labels[compared] = f"LC-Net, {plan['gated'] + plan['fine']} epochs with gates"
    for name, label in labels.items():
        point = networks[name]
        axes.plot(point["share"], 100 * point["accuracy"], "o" if name == compared else "s", label=label)
    axes.set_xlabel("mean share of the dense network's MACs")
    axes.set_ylabel("test accuracy in %")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def cheap_and_dear(macs: NDArray[Any], dense: float, dataset: datasets.Dataset, path: pathlib.Path) -> None:
    """Draws the test images that spent least and most, and how often which share was spent."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    grid = figure.add_gridspec(3, SHOWN)
    order = np.argsort(macs, kind="stable")
    for row, (title, chosen) in enumerate({"cheap": order[:SHOWN], "dear": order[-SHOWN:][::-1]}.items()):
        for column, index in enumerate(chosen):
            axes = figure.add_subplot(grid[row, column])
            image = dataset.x_test[index]
            axes.imshow((image - image.min()) / max(float(np.ptp(image)), 1e-6))
            axes.set_title(f"{macs[index] / dense:.0%}", fontsize=8)
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(title)
    axes = figure.add_subplot(grid[2, :])
    axes.hist(macs / dense, bins=60)
    axes.set_xlabel("share of the dense network's MACs that a test image spends")
    figure.savefig(path, dpi=120)
