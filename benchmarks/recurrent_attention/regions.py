"""Guided attention on scenes of two digits: 2,000 training images, some of them annotated, beside plain RAM."""

import dataclasses
import pathlib
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from benchmarks.cells import Cells
from keras_efficient import datasets
from keras_efficient.datasets import scenes
from keras_efficient.layers import GlimpseCell, GuidedCell
from keras_efficient.models import GuidedAttention, RecurrentAttention

Array = NDArray[Any]
TRAINING_IMAGES = 2000
HELD_OUT_IMAGES = 2000
SIZE = 64
NUM_DIGITS = 5
PIECES = 4
GLIMPSES = 4
SAMPLES = 4
BATCH = 64
EPOCHS = 40
RATE = 2e-3
SEEDS = (0, 1, 2)
SHARES = (0.0, 0.1, 0.3, 1.0)
"""Shares of the training images with annotated regions."""
SENSOR = {"size": 12, "num_scales": 2, "units": 128}


@dataclasses.dataclass(frozen=True)
class Task:
    """Scenes for training, choosing and testing."""

    train: scenes.Scenes
    validation: scenes.Scenes
    test: scenes.Scenes


def task(dataset: datasets.Dataset, training_images: int = TRAINING_IMAGES) -> Task:
    """Two digits below `NUM_DIGITS` and clutter on each canvas; the label is their sum."""

    def made(part: str, count: int, seed: int) -> scenes.Scenes:
        x, y = getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")
        few = y < NUM_DIGITS
        return scenes.digit_scenes(x[few], y[few], count, SIZE, 2, PIECES, num_digits=NUM_DIGITS, seed=seed)

    return Task(
        made("train", training_images, 0), made("validation", HELD_OUT_IMAGES, 1), made("test", HELD_OUT_IMAGES, 2)
    )


def trained(
    scenes_of: Task, share: float | None, seed: int, epochs: int = EPOCHS, **options: Any
) -> RecurrentAttention:
    """A guided network with regions for that share of the images, or plain RAM where `share` is None."""
    keras.utils.set_random_seed(seed)
    train = scenes_of.train
    if share is None:
        model = RecurrentAttention(train.num_classes, GlimpseCell(**SENSOR, seed=seed), GLIMPSES, SAMPLES)
    else:
        model = GuidedAttention(train.num_classes, GuidedCell(**SENSOR, seed=seed), GLIMPSES, SAMPLES)
        options = {"guidance_steps": epochs * (len(train.images) // BATCH) // 2, **options}
    steps = epochs * -(-len(train.images) // BATCH)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(RATE, steps, alpha=0.01), global_clipnorm=5.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        normalize_advantages=True,
        jit_compile=False,
        **options,
    )
    y: Any = train.labels
    if share is not None:
        annotated = np.arange(len(train.images)) < round(share * len(train.images))
        y = {"label": train.labels, "regions": np.where(annotated[:, None, None], train.regions, 0.0).astype("float32")}
    model.fit(train.images, y, batch_size=BATCH, epochs=epochs, verbose=0)
    return model


def measured(model: RecurrentAttention, part: scenes.Scenes) -> dict[str, Any]:
    """Accuracy after each glimpse, and the share of the digits whose inner half some look hit."""
    logits, locations = model.predict_path(part.images, batch_size=500, verbose=0)
    distance = np.abs(locations[:, :, None] - part.regions[:, None, :, :2])
    found = (distance <= 0.5 * part.regions[:, None, :, 2:]).all(-1).any(1)
    accuracy = (logits.argmax(-1) == part.labels[:, None]).mean(0)
    return {"accuracy": [float(value) for value in accuracy], "regions_found": float(found.mean())}


def curve(dataset: datasets.Dataset, work: pathlib.Path, quick: bool = False) -> dict[str, Any]:
    """RAM and guided attention at every share of annotated images; one cell for each network trained."""
    cells = Cells(work / "cells")
    scenes_of: list[Task] = []  # made when a cell needs it

    def cell(share: float | None, seed: int) -> dict[str, Any]:
        if not scenes_of:
            scenes_of.append(task(dataset, 256 if quick else TRAINING_IMAGES))
        model = trained(scenes_of[0], share, seed, 2 if quick else EPOCHS)
        return {part: measured(model, getattr(scenes_of[0], part)) for part in ("validation", "test")}

    found: dict[str, Any] = {}
    for share in (None, 1.0, *SHARES[:-1]):
        name = "ram" if share is None else f"guided_{share:g}"
        runs = [
            cells.get(f"regions/{name}_{seed}", lambda s=share, n=seed: cell(s, n))
            for seed in SEEDS[: 1 if quick else None]
        ]
        accuracies = [run["test"]["accuracy"][-1] for run in runs]
        found[name] = {
            "annotated": share,
            "accuracy": float(np.mean(accuracies)),
            "spread": float(np.std(accuracies)),
            "seeds": accuracies,
            "regions_found": float(np.mean([run["test"]["regions_found"] for run in runs])),
        }
    return found
