"""Training networks for benchmarks: kept on disk, and going on where it was interrupted."""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import keras

from benchmarks.teaching import lesson
from keras_efficient import datasets

BATCH = 128
SHIFT = 4
WEIGHT_DECAY = 5e-3  # decoupled: times the rate, not times the momentum's 1 / (1 - 0.9), so ten times the usual 5e-4


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent on shifted and mirrored images.

    Attributes:
        epochs: Passes over the training images.
        peak: Highest learning rate.
        warmup: Share of the steps in which the rate climbs there from a twentieth of it; a cosine takes it to 0.
        clip: Norm at which the whole gradient is clipped, a guard for the first steps.
        batch: Images per step.
        options: Further arguments of `compile`.
    """

    epochs: int
    peak: float = 0.2
    warmup: float = 0.2
    clip: float = 2.0
    batch: int = BATCH
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


def trained(
    path: pathlib.Path,
    make: Callable[[], keras.Model],
    dataset: datasets.Dataset,
    recipe: Recipe,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    seed: int = 0,
    teacher: keras.Model | None = None,
) -> keras.Model:
    """The network at `path`, trained first where it is not there; an interrupted training goes on at its last epoch."""
    if path.exists():
        return keras.saving.load_model(path)
    keras.utils.set_random_seed(seed)
    model = make()
    batches = datasets.Augmented(dataset.x_train, dataset.y_train, recipe.batch, shift=SHIFT, seed=seed)
    steps = recipe.epochs * len(batches)
    climb = round(recipe.warmup * steps)
    rate = keras.optimizers.schedules.CosineDecay(
        recipe.peak / 20 if climb else recipe.peak,
        steps - climb,
        warmup_target=recipe.peak if climb else None,
        warmup_steps=climb,
    )
    optimizer = keras.optimizers.SGD(
        rate, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY, global_clipnorm=recipe.clip
    )
    optimizer.exclude_from_weight_decay(var_names=["gate_kernel", "gate_bias"])  # it would make gates constant
    learned = lesson(batches, dataset, teacher)
    model.compile(optimizer, learned.loss, metrics=[learned.accuracy], **recipe.options)
    backup = path.with_suffix(".backup")
    model.fit(
        learned.batches,
        epochs=recipe.epochs,
        validation_data=learned.validation,
        validation_batch_size=500,
        validation_freq=max(1, recipe.epochs // 6),
        verbose=2,
        callbacks=[keras.callbacks.BackupAndRestore(str(backup), delete_checkpoint=False), *callbacks],
    )
    save(model, path)
    shutil.rmtree(backup, ignore_errors=True)
    return model


def save(model: keras.Model, path: pathlib.Path, **options: Any) -> None:
    """Writes a `.keras` file, whole or not at all; `options` are those of `keras.Model.save`."""
    written = path.with_suffix(".part.keras")
    model.save(written, **options)
    written.replace(path)


def accuracy(model: keras.Model, x: Any, y: Any) -> float:
    """Share of images classified right."""
    return float((model.predict(x, batch_size=250, verbose=0).argmax(axis=1) == y).mean())
