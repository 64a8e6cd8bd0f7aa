"""A picture of where the bits of a network went."""

import os
from typing import Any

import keras
import numpy as np

from keras_efficient.quantization.multi_bit_model import multi_bit_layers

WIDEST = 120  # groups in a row of the picture; longer layers are cut into more rows


def picture(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Draws the bit-width of every group of every multi-bit layer, and the share of weights at each bit-width.

    One panel per layer: a cell is a group, outputs from left to right, groups of an output from top to bottom; layers
    with more than 120 outputs go on below. Beside it a bar per bit-width. Needs matplotlib.

    Raises:
        ValueError: If the model has no multi-bit layers.
    """
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.figure import Figure

    layers = multi_bit_layers(model)
    if not layers:
        raise ValueError(
            f"Invalid value for argument `model`. Expected a model with multi-bit layers. Received: {model.name!r}"
        )
    widths = [layer.widths().T for layer in layers]
    most = max(int(width.max(initial=0)) for width in widths)
    colours = ["#ededed", "#9ecae1", "#4292c6", "#2171b5", "#08519c", "#08306b", "#062047", "#041530", "#000814"]
    scheme = {"cmap": ListedColormap(colours[: most + 1]), "norm": BoundaryNorm(np.arange(most + 2) - 0.5, most + 1)}
    maps = [_folded(width) for width in widths]
    heights = [max(2.0, min(12.0, 18.0 * len(image) / image.shape[1])) for image in maps]
    figure = Figure(figsize=(11, 1.2 + 0.45 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(layers), 2, squeeze=False, width_ratios=[5, 1], height_ratios=heights)
    for layer, image, width, (left, right) in zip(layers, maps, widths, grid, strict=True):
        shown: Any = left.imshow(image, aspect="auto", interpolation="nearest", **scheme)
        left.set_xticks([])
        left.set_yticks([])
        left.set_title(
            f"{layer.name}: {layer.average_bits:.2f} bits, {layer.num_weights:,} weights in "
            f"{layer.grouping.num_groups:,} {layer.grouping.structure} groups of {layer.grouping.size}",
            fontsize=9,
            loc="left",
        )
        shares = np.bincount(width.ravel(), minlength=most + 1) / width.size
        right.barh(range(most + 1), shares, color=colours[: most + 1], edgecolor="#606060", linewidth=0.5)
        right.set_yticks(range(most + 1), [f"{bits} bit" for bits in range(most + 1)], fontsize=7)
        right.set_xlim(0, 1)
        right.tick_params(axis="x", labelsize=7)
        right.set_title("share of weights", fontsize=8)
    figure.colorbar(shown, ax=grid[:, 0].tolist(), ticks=range(most + 1), shrink=0.6, label="bits of a group", pad=0.01)
    figure.savefig(path, dpi=110)


def _folded(width: Any) -> Any:
    """Bit-widths `[groups, outputs]` in rows of at most `WIDEST` outputs, empty places masked."""
    groups, outputs = width.shape
    rows = -(-outputs // WIDEST)
    columns = -(-outputs // rows)
    image = np.full((rows * groups, columns), -1)
    for row in range(rows):
        part = width[:, row * columns : (row + 1) * columns]
        image[row * groups : (row + 1) * groups, : part.shape[1]] = part
    return np.ma.masked_less(image, 0)
