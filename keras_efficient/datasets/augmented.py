"""Training images, shifted, mirrored and noisy anew in every epoch."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def augment(images: Array, rng: np.random.Generator, shift: int = 4, flip: bool = True, noise: float = 0.0) -> Array:
    """Shifted, perhaps mirrored, noisy copies of images.

    Args:
        images: `[N, height, width, channels]`.
        rng: Where the random numbers come from.
        shift: Each image moves by up to that many pixels each way; zeros come in at the border.
        flip: Whether half of the images are mirrored left to right.
        noise: Standard deviation of the Gaussian noise added.

    Returns:
        Float32, of the same shape.
    """
    count, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    down, right = (rng.integers(0, 2 * shift + 1, (count, 1))[:, 0] for _ in range(2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    moved = np.moveaxis(windows, 3, -1)[np.arange(count), down, right]  # rows of pixels in one piece: fast to copy
    if flip:
        mirrored = rng.integers(0, 2, (count, 1))[:, 0] == 1
        moved[mirrored] = moved[mirrored, :, ::-1]
    if noise:
        moved = moved + rng.normal(0.0, noise, moved.shape)
    return np.asarray(moved, "float32")


class Augmented(keras.utils.PyDataset):
    """Batches of training images for `fit`, shuffled and augmented anew in every epoch; see `augment`.

    Args:
        images: `[N, height, width, channels]`.
        labels: `[N]`.
        batch_size: Images per batch; what is left over at the end of an epoch waits for the next one.
        shift, flip, noise: As for `augment`.
        seed: Of order and augmentation.
    """

    def __init__(
        self,
        images: Array,
        labels: Array,
        batch_size: int = 128,
        *,
        shift: int = 4,
        flip: bool = True,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._images, self._labels, self._batch_size = images, labels, batch_size
        self._options: dict[str, Any] = {"shift": shift, "flip": flip, "noise": noise}
        self._rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return max(1, len(self._images) // self._batch_size)

    def on_epoch_end(self) -> None:
        self._order = self._rng.permutation(len(self._images))

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        return augment(self._images[chosen], self._rng, **self._options), self._labels[chosen]
