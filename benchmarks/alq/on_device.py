"""The batches of `datasets.Augmented`, cut out of images that stay on the device; for the JAX backend."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from keras_efficient import datasets

Array = Any


class OnDevice(datasets.Augmented):
    """Equal, batch by batch, to `datasets.Augmented` of the same arguments: a GPU waits less for the host."""

    def __init__(self, images: Array, labels: Array, batch_size: int, *, shift: int, flip: bool, seed: int) -> None:
        super().__init__(jax.device_put(images), labels, batch_size, shift=shift, flip=flip, seed=seed)
        self._shift, self._flip = shift, flip

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        down, right = (self._rng.integers(0, 2 * self._shift + 1, (len(chosen), 1)) for _ in range(2))
        mirrored = self._rng.integers(0, 2, (len(chosen), 1)) if self._flip else np.zeros((len(chosen), 1), "int64")
        places = (part.astype("int32") for part in (chosen, down - self._shift, right - self._shift, mirrored))
        return _cut(self._images, *places), self._labels[chosen]


@jax.jit
def _cut(images: Array, chosen: Array, down: Array, right: Array, mirrored: Array) -> Array:
    """Images moved by `down` and `right` pixels, zeros from outside, mirrored where 1."""
    height, width = images.shape[1:3]
    rows, columns = down + jnp.arange(height), right + jnp.arange(width)
    columns = jnp.where(mirrored == 1, columns[:, ::-1], columns)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    taken = images[
        chosen[:, None, None], jnp.clip(rows, 0, height - 1)[:, :, None], jnp.clip(columns, 0, width - 1)[:, None, :]
    ]
    return jnp.where(inside[..., None], taken, 0.0)
