"""Images of a run: a data set, perhaps cut short, and the augmentation that all networks are trained with."""

import dataclasses
from typing import Any

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
    """Copies of images `[N, height, width, channels]`, augmented as the recipe says."""
    return datasets.augment(images, rng, recipe.shift, recipe.flip, recipe.noise)


def training_batches(dataset: datasets.Dataset, recipe: Recipe, seed: int) -> datasets.Augmented:
    """The training images as the recipe says."""
    return datasets.Augmented(
        dataset.x_train,
        dataset.y_train,
        recipe.batch_size,
        shift=recipe.shift,
        flip=recipe.flip,
        noise=recipe.noise,
        seed=seed,
    )
