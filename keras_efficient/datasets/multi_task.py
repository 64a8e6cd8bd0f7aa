"""Data for several tasks: scenes of two digits, one task per digit, and Omniglot with one task per alphabet."""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_efficient.datasets.augmented import augment
from keras_efficient.datasets.dataset import Dataset
from keras_efficient.datasets.load import load

Array = NDArray[Any]
Images = Array | dict[str, Array]
TASKS_OF_A_SCENE = ("left", "right")


@dataclasses.dataclass(frozen=True)
class MultiTaskDataset:
    """Images and the labels of several tasks, in three disjoint parts.

    Attributes:
        name: Name of the data set.
        num_classes: Classes by task.
        x_train: Images `[N, height, width, channels]`, float32 in [0, 1], or a dictionary of them by task where each
            task has images of its own. Likewise `x_validation` and `x_test`.
        y_train: Labels `[N]` by task, int64. Likewise `y_validation` and `y_test`.
    """

    name: str
    num_classes: dict[str, int]
    x_train: Images
    y_train: dict[str, Array]
    x_validation: Images
    y_validation: dict[str, Array]
    x_test: Images
    y_test: dict[str, Array]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return tuple(self.num_classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of one image."""
        images = next(iter(self.x_train.values())) if isinstance(self.x_train, dict) else self.x_train
        height, width, channels = images.shape[1:]
        return (int(height), int(width), int(channels))


def two_digit_scenes(
    digits: Dataset, counts: tuple[int, int, int] = (20000, 2000, 5000), shift: int = 8, seed: int = 0
) -> MultiTaskDataset:
    """Scenes of two overlapping digits with the tasks `"left"` and `"right"`: which digit is the one up left, which the
    one down right.

    Two different images of a part are drawn for each scene; the first lies up to half of `shift` pixels from the upper
    left corner, the second likewise from the lower right one, and where they overlap the brighter pixel shows.

    Args:
        digits: Such as `load("mnist")`; scenes of a part are made of images of that part.
        counts: Scenes for training, validation and test.
        shift: Pixels by which a scene is higher and wider than an image.
        seed: Of what is drawn.

    Returns:
        A `MultiTaskDataset` of images `[N, H + shift, W + shift, C]`.

    Reference: after the MultiMNIST of Sabour et al., "Dynamic Routing Between Capsules", NeurIPS 2017.
    """
    if shift < 2 or shift % 2:
        raise ValueError(
            f"Invalid value for argument `shift`. Expected an even number of at least 2. Received: {shift}"
        )
    if len(counts) != 3 or min(counts) < 1:
        raise ValueError(f"Invalid value for argument `counts`. Expected three positive numbers. Received: {counts}")
    parts: dict[str, Any] = {}
    for number, part in enumerate(("train", "validation", "test")):
        rng = np.random.default_rng((seed, number))
        images, labels = getattr(digits, f"x_{part}"), getattr(digits, f"y_{part}")
        parts[f"x_{part}"], chosen = _scenes(images, counts[number], shift, rng)
        parts[f"y_{part}"] = {task: labels[chosen[:, k]] for k, task in enumerate(TASKS_OF_A_SCENE)}
    classes = dict.fromkeys(TASKS_OF_A_SCENE, digits.num_classes)
    return MultiTaskDataset(f"two_digit_{digits.name}", classes, **parts)


def _scenes(images: Array, count: int, shift: int, rng: np.random.Generator) -> tuple[Array, Array]:
    total, height, width, channels = images.shape
    chosen = np.stack([rng.integers(0, total, count), rng.integers(0, total - 1, count)], axis=1)
    chosen[:, 1] += chosen[:, 1] >= chosen[:, 0]
    scenes = np.zeros((count, height + shift, width + shift, channels), "float32")
    for k in range(2):
        corner = rng.integers(0, shift // 2 + 1, (count, 2)) + k * (shift - shift // 2)
        rows = (corner[:, :1] + np.arange(height))[:, :, None]
        columns = (corner[:, 1:] + np.arange(width))[:, None, :]
        here = np.arange(count)[:, None, None]
        scenes[here, rows, columns] = np.maximum(scenes[here, rows, columns], images[chosen[:, k]])
    return scenes, chosen


def omniglot_alphabets(
    data_dir: str | os.PathLike[str] | None = None, pooled: int = 4, train_images: int | None = None
) -> MultiTaskDataset:
    """Omniglot with one task per alphabet: which of its characters an image shows.

    Args:
        data_dir: As for `load`.
        pooled: Images of 105 x 105 pixels get a border of zeros and become means over squares of this size: 4 gives
            27 x 27 pixels.
        train_images: Training images per character, at most the 12 that there are; None for all.

    Returns:
        A `MultiTaskDataset` whose images are dictionaries by alphabet: 12 training, 4 validation and 4 test images of
        every character.
    """
    whole = load("omniglot", data_dir)
    if pooled < 1 or pooled > whole.input_shape[0]:
        raise ValueError(
            f"Invalid value for argument `pooled`. Expected 1 to {whole.input_shape[0]}. Received: {pooled}"
        )
    alphabets = [re.sub(r"[^A-Za-z0-9_]", "", name.rpartition("/")[0]) for name in whole.class_names]
    names = tuple(dict.fromkeys(alphabets))
    members = {name: np.flatnonzero([alphabet == name for alphabet in alphabets]) for name in names}
    parts: dict[str, Any] = {}
    for part in ("train", "validation", "test"):
        images, labels = _pooled(getattr(whole, f"x_{part}"), pooled), getattr(whole, f"y_{part}")
        xs, ys = {}, {}
        for name, classes in members.items():
            chosen = np.flatnonzero(np.isin(labels, classes))
            if part == "train" and train_images is not None:
                chosen = _first_of_each(labels, chosen, train_images)
            xs[name] = images[chosen]
            ys[name] = np.searchsorted(classes, labels[chosen]).astype("int64")
        parts[f"x_{part}"], parts[f"y_{part}"] = xs, ys
    return MultiTaskDataset("omniglot_alphabets", {name: len(members[name]) for name in names}, **parts)


def _pooled(images: Array, size: int) -> Array:
    count, height, width, channels = images.shape
    border = [(-edge) % size for edge in (height, width)]
    edges = [(edge // 2, edge - edge // 2) for edge in border]
    padded = np.pad(images, ((0, 0), *edges, (0, 0)))
    rows, columns = padded.shape[1] // size, padded.shape[2] // size
    return np.asarray(padded.reshape(count, rows, size, columns, size, channels).mean(axis=(2, 4)), "float32")


def _first_of_each(labels: Array, chosen: Array, count: int) -> Array:
    return np.concatenate([chosen[labels[chosen] == label][:count] for label in np.unique(labels[chosen])])


class TaskBatches(keras.utils.PyDataset):
    """Batches for `MultiTask.fit`, shuffled and augmented anew in every epoch.

    Of tasks with images of their own a batch holds equally many of each, `[B, T, height, width, channels]`: one image
    per task in every row. An epoch sees as many images as there are; those of small tasks come up more than once.

    Args:
        x: Images `[N, height, width, channels]` that all tasks share, or a dictionary of them by task.
        y: Labels by task.
        batch_size: Images per batch, those of all tasks together.
        shift: Each image moves by up to that many pixels each way.
        noise: Standard deviation of the Gaussian noise added.
        rotation: Each image is turned by up to that many degrees, and stretched and sheared by up to as many percent.
        seed: Of order and augmentation.
    """

    def __init__(
        self,
        x: Images,
        y: Mapping[str, Array],
        batch_size: int = 128,
        *,
        shift: int = 0,
        noise: float = 0.0,
        rotation: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= rotation < 90:
            raise ValueError(
                f"Invalid value for argument `rotation`. Expected degrees from 0 to below 90. Received: {rotation!r}"
            )
        if isinstance(x, dict) and set(x) != set(y):
            raise ValueError(
                f"Invalid value for argument `y`. Expected labels of {sorted(x)}, the tasks of `x`. "
                f"Received: {sorted(y)}"
            )
        self._x = x if isinstance(x, dict) else {"": x}
        self._y = {task: y[task] for task in x} if isinstance(x, dict) else dict(y)
        for task, labels in self._y.items():
            images = self._x[task if isinstance(x, dict) else ""]
            if len(labels) != len(images):
                raise ValueError(
                    "Invalid value for argument `y`. Expected one label per image. "
                    f"Received: {len(labels)} labels of task {task!r} for {len(images)} images"
                )
        self._size = max(1, batch_size // len(self._x))
        self._steps = max(1, sum(map(len, self._x.values())) // (self._size * len(self._x)))
        self._options: dict[str, Any] = {"shift": shift, "flip": False, "noise": noise}
        self._rotation = float(rotation)
        self._rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return self._steps

    def on_epoch_end(self) -> None:
        self._order = {task: self._long_order(len(images)) for task, images in self._x.items()}

    def _long_order(self, count: int) -> Array:
        """Permutations of all images one behind the other, for one epoch."""
        needed = self._size * self._steps
        rounds = [self._rng.permutation(count) for _ in range(-(-needed // count))]
        return np.concatenate(rounds)[:needed]

    def __getitem__(self, index: int) -> tuple[Array, dict[str, Array]]:
        rows = slice(index * self._size, (index + 1) * self._size)
        chosen = {task: order[rows] for task, order in self._order.items()}
        images = {task: self._augmented(self._x[task][chosen[task]]) for task in self._x}
        if "" in images:
            return images[""], {task: labels[chosen[""]] for task, labels in self._y.items()}
        return np.stack(list(images.values()), axis=1), {task: labels[chosen[task]] for task, labels in self._y.items()}

    def _augmented(self, images: Array) -> Array:
        if self._rotation:
            images = tilted(images, self._rng, self._rotation)
        return augment(images, self._rng, **self._options) if any(self._options.values()) else images


def tilted(images: Array, rng: np.random.Generator, rotation: float) -> Array:
    """Images turned, stretched and sheared at random about their centres; zeros come in at the border.

    Args:
        images: `[N, height, width, channels]`.
        rng: Where the random numbers come from.
        rotation: Largest angle in degrees. Sizes change by up to as many percent, and rows shift by up to as many
            percent of their distance from the centre.

    Returns:
        Float32, of the same shape, linearly interpolated.
    """
    count, height, width, channels = images.shape
    angle = np.deg2rad(rng.uniform(-rotation, rotation, (count, 1)))
    size = np.exp(rng.uniform(-rotation, rotation, (count, 1)) / 100)
    shear = rng.uniform(-rotation, rotation, (count, 1)) / 100
    y = np.repeat(np.arange(height) - (height - 1) / 2, width)
    x = np.tile(np.arange(width) - (width - 1) / 2, height)
    sheared = x + shear * y
    rows = (np.cos(angle) * y - np.sin(angle) * sheared) / size + (height - 1) / 2 + 1
    columns = (np.sin(angle) * y + np.cos(angle) * sheared) / size + (width - 1) / 2 + 1
    rows, columns = np.clip(rows, 0, height + 1), np.clip(columns, 0, width + 1)  # of an image with a border of 1
    above, left = np.minimum(rows.astype("int64"), height), np.minimum(columns.astype("int64"), width)
    down, right = rows - above, columns - left
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(count, -1, channels)
    corner = above * (width + 2) + left
    mixed = sum(
        np.take_along_axis(padded, (corner + step)[..., None], axis=1) * weight[..., None]
        for step, weight in (
            (0, (1 - down) * (1 - right)),
            (1, (1 - down) * right),
            (width + 2, down * (1 - right)),
            (width + 3, down * right),
        )
    )
    return np.asarray(mixed, "float32").reshape(images.shape)
