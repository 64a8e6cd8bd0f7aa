"""Images of a run: a data set, perhaps cut short, and the augmentation that all networks are trained with."""

import dataclasses
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_efficient import datasets
from keras_efficient.demo.settings import Recipe, Settings

Array = NDArray[Any]


def load(settings: Settings) -> datasets.Dataset:
    """The data set of a run, at most `settings.images` of each part."""
    dataset = datasets.load(settings.data, settings.data_dir)
    if settings.images is None:
        return dataset
    parts = {}
    for part in ("train", "validation", "test"):
        for letter in "xy":
            parts[f"{letter}_{part}"] = getattr(dataset, f"{letter}_{part}")[: settings.images]
    return dataclasses.replace(dataset, **parts)


def augmented(images: Array, recipe: Recipe, rng: np.random.Generator) -> Array:
    """Shifted, perhaps mirrored, noisy copies of images `[N, height, width, channels]`."""
    count, height, width, _ = images.shape
    size = recipe.shift
    padded = np.pad(images, ((0, 0), (size, size), (size, size), (0, 0)))
    rows = rng.integers(0, 2 * size + 1, (count, 1)) + np.arange(height)
    columns = rng.integers(0, 2 * size + 1, (count, 1)) + np.arange(width)
    if recipe.flip:
        columns = np.where(rng.integers(0, 2, (count, 1)) == 1, columns[:, ::-1], columns)
    moved = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    if recipe.noise:
        moved = moved + rng.normal(0.0, recipe.noise, moved.shape)
    return np.asarray(moved, "float32")


class Augmented(keras.utils.PyDataset):
    """Batches of training images, shuffled and augmented anew in every epoch."""

    def __init__(self, images: Array, labels: Array, recipe: Recipe, seed: int) -> None:
        super().__init__()
        self._images, self._labels, self._recipe = images, labels, recipe
        self._rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return max(1, len(self._images) // self._recipe.batch_size)

    def on_epoch_end(self) -> None:
        self._order = self._rng.permutation(len(self._images))

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        size = self._recipe.batch_size
        chosen = self._order[index * size : (index + 1) * size]
        return augmented(self._images[chosen], self._recipe, self._rng), self._labels[chosen]
