"""Digits on larger canvases: translated, among clutter, and several in one scene with the regions where they are."""

import dataclasses
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ATTEMPTS = 1000


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Scenes of several digits each.

    Attributes:
        images: `[N, size, size, C]` float32 in [0, 1].
        labels: `[N]` int64, the sum of the digits.
        regions: `[N, D, 4]` float32, for each digit the centre (y, x) of its square and half its height and width, in
            units of locations: [-1, 1] spans the image.
        digits: `[N, D]` int64, the digits themselves, in the order of `regions`.
        num_classes: Number of possible sums.
    """

    images: Array
    labels: Array
    regions: Array
    digits: Array
    num_classes: int


def translated(images: Array, size: int, rng: np.random.Generator, pieces: int = 0, piece_size: int = 8) -> Array:
    """Each image somewhere on a black canvas, among pieces of other images.

    Args:
        images: `[N, h, w, C]` in [0, 1].
        size: Height and width of the canvas in pixels.
        rng: Where the random numbers come from.
        pieces: Number of distracting squares, cut out of other images at random and put anywhere.
        piece_size: Their height and width in pixels.

    Returns:
        `[N, size, size, C]` float32. Where things overlap, the brighter pixel stays.
    """
    count, height, width, channels = _checked(images, size)
    canvas = np.zeros((count, size, size, channels), "float32")
    _clutter(canvas, images, rng, pieces, piece_size)
    tops, lefts = rng.integers(0, size - height + 1, count), rng.integers(0, size - width + 1, count)
    _paste(canvas, images, tops, lefts)
    return canvas


def digit_scenes(
    images: Array,
    labels: Array,
    count: int,
    size: int = 100,
    digits: int = 2,
    pieces: int = 8,
    piece_size: int = 8,
    num_digits: int = 10,
    seed: int = 0,
) -> Scenes:
    """Scenes whose label is the sum of several digits: nobody can tell it who has not found them all.

    Args:
        images: `[N, h, w, C]` in [0, 1], each with one digit.
        labels: `[N]` integers in `[0, num_digits)`.
        count: Number of scenes.
        size: Height and width of a scene in pixels.
        digits: Digits per scene; their squares do not overlap.
        pieces, piece_size: Clutter, as for `translated`.
        num_digits: Number of digits.
        seed: Of everything drawn.

    Raises:
        ValueError: If a digit is larger than the scene, or no room is found for all of them.
    """
    _, height, width, channels = _checked(images, size)
    for name, value in (("count", count), ("digits", digits), ("num_digits", num_digits)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"Invalid value for argument `{name}`. Expected a positive integer. Received: {value!r}")
    labels = np.asarray(labels)
    fits = labels.shape == (len(images),) and labels.dtype.kind in "iu"
    if not fits or labels.min() < 0 or labels.max() >= num_digits:
        raise ValueError(
            f"Invalid value for argument `labels`. Expected {len(images)} integers in [0, {num_digits}). "
            f"Received: shape {labels.shape}, dtype {labels.dtype}"
        )
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, len(images), (count, digits))
    tops, lefts = _apart(rng, count, digits, (size - height, size - width), (height, width))
    canvas = np.zeros((count, size, size, channels), "float32")
    _clutter(canvas, images[rng.integers(0, len(images), count)], rng, pieces, piece_size)
    for place in range(digits):
        _paste(canvas, images[chosen[:, place]], tops[:, place], lefts[:, place])
    centres = np.stack([tops + height / 2, lefts + width / 2], axis=-1) * 2 / size - 1
    halves = np.broadcast_to([height / size, width / size], centres.shape)
    found = labels[chosen].astype("int64")
    regions = np.concatenate([centres, halves], axis=-1).astype("float32")
    return Scenes(canvas, found.sum(axis=1), regions, found, (num_digits - 1) * digits + 1)


def regions_of(boxes: Any, image_shape: tuple[int, ...]) -> Array:
    """Boxes in pixels as the regions that `GuidedAttention` learns from.

    Args:
        boxes: `[N, R, 4]`, each (top, left, bottom, right) with the last row and column excluded; NaN where an image
            has fewer than `R` regions, or none.
        image_shape: `(height, width, ...)`.

    Returns:
        `[N, R, 4]` float32: centre (y, x) and half height and half width in units of locations, in which [-1, 1] spans
        the image; zeros where there is no region.

    Raises:
        ValueError: If a box is empty or reaches outside the image.
    """
    array = np.asarray(boxes, "float64")
    if array.ndim != 3 or array.shape[-1] != 4:
        raise ValueError(
            "Invalid value for argument `boxes`. Expected shape [images, regions, 4], each (top, left, bottom, right). "
            f"Received: shape {array.shape}"
        )
    there = np.logical_not(np.isnan(array).any(axis=-1))
    low, high = array[..., :2], array[..., 2:]
    extent = np.asarray(image_shape[:2], "float64")
    with np.errstate(invalid="ignore"):
        fits = ((low >= 0) & (high <= extent) & (high > low)).all(-1)
    wrong = array[np.logical_and(there, np.logical_not(fits))]
    if len(wrong):
        raise ValueError(
            f"Invalid value for argument `boxes`. Expected boxes inside of images of {tuple(image_shape[:2])} pixels, "
            f"with bottom and right beyond top and left. Received: {wrong[0].tolist()}"
        )
    regions = np.concatenate([(low + high) / extent - 1, (high - low) / extent], axis=-1)
    return np.where(there[..., None], regions, 0.0).astype("float32")


class Translated(keras.utils.PyDataset):
    """Batches for `fit` of images at random places among clutter, anew in every epoch; see `translated`.

    Args:
        images: `[N, h, w, C]`.
        labels: `[N]`.
        size: Of the canvas.
        batch_size: Images per batch; what is left over at the end of an epoch waits for the next one.
        pieces, piece_size: Clutter.
        seed: Of order, places and clutter.
    """

    def __init__(
        self,
        images: Array,
        labels: Array,
        size: int,
        batch_size: int = 128,
        *,
        pieces: int = 0,
        piece_size: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _checked(images, size)
        self._images, self._labels, self._size, self._batch_size = images, labels, size, batch_size
        self._clutter = {"pieces": pieces, "piece_size": piece_size}
        self._rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return max(1, len(self._images) // self._batch_size)

    def on_epoch_end(self) -> None:
        self._order = self._rng.permutation(len(self._images))

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        return translated(self._images[chosen], self._size, self._rng, **self._clutter), self._labels[chosen]


def _checked(images: Array, size: int) -> tuple[int, int, int, int]:
    if images.ndim != 4 or not len(images):
        raise ValueError(
            "Invalid value for argument `images`. Expected shape [images, height, width, channels]. "
            f"Received: shape {images.shape}"
        )
    count, height, width, channels = (int(length) for length in images.shape)
    if isinstance(size, bool) or not isinstance(size, int) or size < max(height, width):
        raise ValueError(
            f"Invalid value for argument `size`. Expected at least {max(height, width)} pixels, the size of an image. "
            f"Received: {size!r}"
        )
    return count, height, width, channels


def _paste(canvas: Array, patches: Array, tops: Array, lefts: Array) -> None:
    """Puts patch `n` onto canvas `n` at its top and left."""
    rows = tops[:, None, None] + np.arange(patches.shape[1])[:, None]
    columns = lefts[:, None, None] + np.arange(patches.shape[2])
    which = np.arange(len(canvas))[:, None, None]
    canvas[which, rows, columns] = np.maximum(canvas[which, rows, columns], patches)


def _clutter(canvas: Array, images: Array, rng: np.random.Generator, pieces: int, piece_size: int) -> None:
    count, height, width, _ = images.shape
    if pieces and not 0 < piece_size <= min(height, width):
        raise ValueError(
            f"Invalid value for argument `piece_size`. Expected 1 to {min(height, width)} pixels. "
            f"Received: {piece_size!r}"
        )
    size = canvas.shape[1]
    span = np.arange(piece_size)
    for _ in range(pieces):
        source = rng.permutation(count)[:, None, None]
        rows = rng.integers(0, height - piece_size + 1, count)[:, None, None] + span[:, None]
        columns = rng.integers(0, width - piece_size + 1, count)[:, None, None] + span
        places = rng.integers(0, size - piece_size + 1, (2, len(canvas)))
        _paste(canvas, images[source, rows, columns], places[0], places[1])


def _apart(
    rng: np.random.Generator, count: int, digits: int, room: tuple[int, int], box: tuple[int, int]
) -> tuple[Array, Array]:
    """Tops and lefts `[count, digits]` of boxes that do not overlap."""
    places = np.zeros((count, digits, 2), "int64")
    open_rows = np.arange(count)
    for _ in range(ATTEMPTS):
        places[open_rows] = rng.integers(0, np.asarray(room) + 1, (len(open_rows), digits, 2))
        gaps = np.abs(places[open_rows, :, None] - places[open_rows, None])
        overlap = (gaps < np.asarray(box)).all(-1) & ~np.eye(digits, dtype=bool)
        open_rows = open_rows[overlap.any((1, 2))]
        if not len(open_rows):
            return places[..., 0], places[..., 1]
    raise ValueError(
        f"Invalid value for argument `digits`. Expected few enough for {digits} squares of {box} pixels to have room. "
        f"Received: {digits} in {room[0] + box[0]} x {room[1] + box[1]} pixels"
    )
