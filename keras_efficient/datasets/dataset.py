"""The record that every loader returns, and the splits, which need no random numbers."""

import dataclasses
import itertools

import numpy as np


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images and labels in three disjoint parts.

    Attributes:
        name: Name of the data set.
        x_train: Images `[N, height, width, channels]`, float32 in [0, 1]. Likewise `x_validation` and `x_test`.
        y_train: Labels `[N]`, int64 in `[0, num_classes)`. Likewise `y_validation` and `y_test`.
        num_classes: Number of classes.
        class_names: One name per class.
        normalization: `(mean, std)` with `x = (raw - mean) / std`, for whoever feeds raw pixels to an
            exported model.
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int
    class_names: tuple[str, ...]
    normalization: tuple[float, float]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of one image."""
        height, width, channels = self.x_train.shape[1:]
        return (int(height), int(width), int(channels))


def positions_in_class(labels: np.ndarray) -> np.ndarray:
    """How many earlier samples have the same label, `[N]` int64 for labels `[N]`."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    starts = np.searchsorted(ordered, ordered)
    positions = np.empty(len(labels), "int64")
    positions[order] = np.arange(len(labels)) - starts
    return positions


def stratified_parts(labels: np.ndarray, shares: tuple[int, ...]) -> list[np.ndarray]:
    """Indices of each part, every class dealt out in the proportion `shares`: `(3, 1, 1)` gives 60, 20 and 20 percent.

    The samples of a class are dealt like cards, in the order of the data set, so the split is the same everywhere.
    """
    seat = positions_in_class(labels) % sum(shares)
    bounds = np.cumsum((0, *shares))
    return [np.flatnonzero((seat >= low) & (seat < high)) for low, high in itertools.pairwise(bounds)]


def as_images(raw: np.ndarray, std: float) -> np.ndarray:
    """Pixels `[N, height, width]` or `[N, height, width, channels]` to float32 images with a channel axis."""
    images = raw.astype("float32") / np.float32(std)
    return images[..., np.newaxis] if images.ndim == 3 else images
