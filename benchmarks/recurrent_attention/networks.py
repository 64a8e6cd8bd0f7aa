"""The networks of the comparison and their recipes; training goes on where it was interrupted."""

import argparse
import dataclasses
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from benchmarks.training import save
from keras_efficient import datasets
from keras_efficient.datasets import scenes
from keras_efficient.layers import GlimpseCell
from keras_efficient.models import RecurrentAttention

Array = NDArray[Any]
BATCH = 256
CLIP_NORM = 5.0
LAST_RATE = 0.01  # share of the learning rate left at the end of the cosine
CANVASES = {"mnist_28": (28, 0), "translated_60": (60, 0), "cluttered_100": (100, 8)}
"""Size of each task's canvas in pixels, and pieces of clutter, 8 x 8 pixels each."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one network is made and trained.

    Attributes:
        task: One of `CANVASES`.
        make: Makes the network.
        epochs: Passes over the training images, each at new places.
        rate: Adam's learning rate at the beginning of a cosine.
        options: Further arguments of `compile`.
    """

    task: str
    make: Callable[[], keras.Model]
    epochs: int
    rate: float
    options: dict[str, Any]


def attention(size: int, num_scales: int, num_glimpses: int = 6) -> RecurrentAttention:
    """A recurrent attention model for MNIST's classes."""
    cell = GlimpseCell(size, num_scales, seed=0)
    return RecurrentAttention(10, cell, num_glimpses)


def cnn() -> keras.Model:
    """A convolutional network on 100 x 100 pixels, as many multiply-adds as six glimpses of four scales."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((100, 100, 1)),
            layers.Conv2D(8, 5, strides=3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(18, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(40, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(78, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalMaxPooling2D(),
            layers.Dense(10),
        ],
        name="cnn",
    )


LOOKING = {"policy_weight": 0.05, "normalize_advantages": True, "location_decay": 0.01, "reward": "every"}
RECIPES = {
    "mnist_28": Recipe("mnist_28", lambda: attention(8, 1), 150, 3e-3, {**LOOKING, "loss_weights": [1 / 6] * 6}),
    "translated_60": Recipe(
        "translated_60", lambda: attention(12, 3), 90, 1e-3, {**LOOKING, "loss_weights": [1 / 6] * 6}
    ),
    "cluttered_100": Recipe(
        "cluttered_100", lambda: attention(12, 4), 30, 1e-3, {**LOOKING, "loss_weights": [1 / 6] * 6}
    ),
    "cnn_100": Recipe("cluttered_100", cnn, 30, 2e-3, {}),
}


def images(dataset: datasets.Dataset, task: str, part: str) -> tuple[Array, Array]:
    """Validation or test images of a task, the same on every machine, and their labels."""
    x, y = getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")
    size, pieces = CANVASES[task]
    if size > x.shape[1]:
        x = scenes.translated(x, size, np.random.default_rng({"validation": 1, "test": 2}[part]), pieces)
    return x, y


def batches(dataset: datasets.Dataset, task: str, seed: int = 0) -> keras.utils.PyDataset:
    """Training images of a task, at new places in every epoch; 28 x 28 images move by a pixel at most."""
    size, pieces = CANVASES[task]
    if size == dataset.x_train.shape[1]:
        return datasets.Augmented(dataset.x_train, dataset.y_train, BATCH, shift=1, flip=False, seed=seed)
    return scenes.Translated(dataset.x_train, dataset.y_train, size, BATCH, pieces=pieces, seed=seed)


class StopAfter(keras.callbacks.Callback):
    """Ends a training behind the epoch in which its time is up; another run goes on there."""

    def __init__(self, minutes: float | None) -> None:
        super().__init__()
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self.stopped = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._end is not None and time.monotonic() > self._end:
            self.stopped = self.model.stop_training = True


def trained(
    path: pathlib.Path, recipe: Recipe, dataset: datasets.Dataset, minutes: float | None = None
) -> keras.Model | None:
    """The network at `path`, trained first where it is not there; None where the time was up before its last epoch."""
    if path.exists():
        return keras.saving.load_model(path)
    keras.utils.set_random_seed(0)
    model = recipe.make()
    data = batches(dataset, recipe.task)
    size, _ = CANVASES[recipe.task]
    if not model.built:
        model.build((None, size, size, 1))
    rate = keras.optimizers.schedules.CosineDecay(recipe.rate, recipe.epochs * len(data), alpha=LAST_RATE)
    model.compile(
        keras.optimizers.Adam(rate, global_clipnorm=CLIP_NORM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
        **recipe.options,
    )
    backup = path.with_suffix(".backup")
    stop = StopAfter(minutes)
    model.fit(
        data,
        epochs=recipe.epochs,
        validation_data=images(dataset, recipe.task, "validation"),
        validation_batch_size=500,
        validation_freq=max(1, recipe.epochs // 10),
        verbose=2,
        callbacks=[keras.callbacks.BackupAndRestore(str(backup), delete_checkpoint=False), stop],
    )
    if stop.stopped and model.optimizer.iterations < recipe.epochs * len(data):
        return None
    save(model, path)
    shutil.rmtree(backup, ignore_errors=True)
    return model


def main() -> None:
    """Trains one network: `python -m benchmarks.recurrent_attention.networks NAME --work DIR`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=list(RECIPES))
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/recurrent_attention"))
    parser.add_argument("--data-dir")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--minutes", type=float, help="stop after that time; run again to go on")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    recipe = RECIPES[options.name]
    recipe = dataclasses.replace(recipe, epochs=options.epochs or recipe.epochs)
    trained(options.work / f"{options.name}.keras", recipe, datasets.load("mnist", options.data_dir), options.minutes)


if __name__ == "__main__":
    main()
