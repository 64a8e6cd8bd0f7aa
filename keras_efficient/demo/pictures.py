"""The pictures of the report, as PNG files in memory. Needs matplotlib."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
# Colours that people with any colour vision can tell apart (Okabe and Ito).
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"
MARKERS = {"threshold": ("o", BLUE), "backward_induction": ("s", GREEN), "tf_agents": ("^", PURPLE)}
NAMES = {"threshold": "threshold", "backward_induction": "backward induction", "tf_agents": "TF-Agents"}


def available() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def accuracy_against_compute(
    curve: tuple[Array, Array],
    policies: Mapping[str, tuple[float, float]],
    chosen: str,
    exits: Sequence[tuple[float, float]],
    static: Mapping[str, tuple[float, float]],
) -> bytes:
    """Points `(MACs, accuracy)`: the curve of all thresholds, each policy, each exit alone, the static networks."""
    figure, axes = _figure(7.2, 4.4)
    axes.plot(
        curve[0] / 1e3,
        100 * curve[1],
        color=BLUE,
        linewidth=1.2,
        alpha=0.7,
        label="every threshold",
        drawstyle="steps-post",
        zorder=1,
    )
    macs, accuracy = np.asarray(exits).T
    axes.plot(macs / 1e3, 100 * accuracy, "x", color=GREY, markersize=8, label="one exit for all", zorder=2)
    for number, (x, y) in enumerate(exits, start=1):
        axes.annotate(
            f"exit {number}", (x / 1e3, 100 * y), textcoords="offset points", xytext=(6, -12), color=GREY, fontsize=8
        )
    x, y = policies[chosen]
    axes.plot(x / 1e3, 100 * y, "o", color="none", markeredgecolor=RED, markersize=17, markeredgewidth=1.6, zorder=5)
    for name, (x, y) in policies.items():
        marker, color = MARKERS.get(name, ("D", RED))
        label = NAMES.get(name, name) + (" (deployed)" if name == chosen else "")
        style = {"markersize": 9, "markeredgecolor": "white", "linestyle": "", "zorder": 4}
        axes.plot(x / 1e3, 100 * y, marker, color=color, label=label, **style)
    for (name, (x, y)), marker in zip(static.items(), ("*", "P"), strict=False):
        axes.plot(
            x / 1e3,
            100 * y,
            marker,
            color=ORANGE,
            markersize=14,
            markeredgecolor="white",
            label=name,
            linestyle="",
            zorder=3,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("thousand multiply-adds per image (logarithmic)")
    axes.set_ylabel("accuracy on the test images, %")
    shown = [100 * y for _, y in [*policies.values(), *static.values(), *exits[1:]]]
    axes.set_ylim(min(shown) - 1.5, min(100.2, max(shown) + 1.0))
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    axes.grid(alpha=0.2, which="both")
    return _png(figure)


def exits_taken(images: Array, exit_index: Array, num_exits: int, right: Array, examples: int = 10) -> bytes:
    """The share of images that leaves at each exit, with examples; a red frame marks a wrong answer."""
    from matplotlib.patches import Rectangle

    figure, axes = _figure(7.2, 0.55 + 0.75 * num_exits)
    axes.set_xlim(0, 1.0 + examples)
    axes.set_ylim(num_exits - 0.45, -0.55)
    axes.axis("off")
    for number in range(num_exits):
        here = np.flatnonzero(exit_index == number)
        share = len(here) / len(exit_index)
        axes.add_patch(Rectangle((0.02, number - 0.32), 2.3, 0.64, color="#eeeeee"))
        axes.add_patch(Rectangle((0.02, number - 0.32), 2.3 * share, 0.64, color=BLUE, alpha=0.75))
        axes.text(0.1, number, f"exit {number + 1}: {share:.1%} ({len(here)})", va="center", fontsize=9)
        wrong = here[~right[here]]
        chosen = np.concatenate([wrong[:3], here[right[here]]])[: examples - 2]
        for place, index in enumerate(chosen):
            left = 2.6 + place
            image = np.clip(images[index], 0, 1)
            axes.imshow(
                image[..., 0] if image.shape[-1] == 1 else image,
                cmap="gray_r",
                extent=(left, left + 0.8, number + 0.4, number - 0.4),
                aspect="auto",
                interpolation="nearest",
            )
            edge, width = (RED, 2.2) if not right[index] else ("#bbbbbb", 0.6)
            axes.add_patch(Rectangle((left, number - 0.4), 0.8, 0.8, fill=False, edgecolor=edge, linewidth=width))
    axes.set_xlim(0, 1.0 + examples)
    axes.set_ylim(num_exits - 0.45, -0.55)
    return _png(figure)


def open_gates(layers: Mapping[str, Mapping[str, float]]) -> bytes:
    """Per gated layer the mean share of open gates among the images that reach it, with the spread over images."""
    figure, axes = _figure(7.2, 0.9 + 0.45 * len(layers))
    names = list(layers)
    mean = np.asarray([layers[name]["open"] for name in names])
    low = np.asarray([layers[name]["lowest"] for name in names])
    high = np.asarray([layers[name]["highest"] for name in names])
    places = np.arange(len(names))
    axes.barh(places, np.ones(len(names)), color="#eeeeee", height=0.6)
    axes.barh(places, mean, color=GREEN, alpha=0.8, height=0.6)
    axes.hlines(places, low, high, color="black", linewidth=1.4)
    for place, name in zip(places, names, strict=True):
        axes.text(1.01, place, f"reached by {layers[name]['reached']:.0%}", va="center", fontsize=8, color=GREY)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25)
    axes.set_xticks(np.linspace(0, 1, 6), [f"{tick:.0%}" for tick in np.linspace(0, 1, 6)])
    axes.set_xlabel("gates open (bar: mean, line: 5th to 95th percentile of images)")
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
