"""What looking at regions of interest earns: pure functions of locations and regions."""

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

Tensor = Any


def first_visits(locations: Tensor, regions: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """Which looks were the first at some region, and which regions were found.

        hit_{t,j} = all |l_t - c_j| <= reach * s_j, for regions with a size

    Args:
        locations: `[N, T, 2]`.
        regions: `[N, R, 4]`: centre `c_j` and half sizes `s_j`, zeros where there is no region.
        reach: Scalar.

    Returns:
        `[N, T]`, 1 where some region was hit that no earlier look had hit, and `[N, T, R]`, 1 for regions hit by then.
    """
    distance = ops.abs(locations[:, :, None] - regions[:, None, :, :2])
    inside = ops.all(distance <= reach * regions[:, None, :, 2:], axis=-1)
    there = ops.all(regions[:, None, :, 2:] > 0, axis=-1)
    hits = ops.cast(ops.logical_and(inside, there), "float32")
    visits = ops.cumsum(hits, axis=1)
    first = hits * ops.cast(visits <= 1.0, "float32")
    return ops.max(first, axis=-1), ops.minimum(visits, 1.0)


def rewards_to_go(rewards: Tensor, discount: float) -> Tensor:
    """`G_t = sum_{t' >= t} discount^{t' - t} r_t'` for rewards `[N, T]`."""
    steps = np.arange(int(rewards.shape[1]))
    ahead = steps[:, None] - steps[None, :]
    matrix = np.where(ahead >= 0, float(discount) ** np.maximum(ahead, 0), 0.0)
    return ops.matmul(rewards, ops.convert_to_tensor(matrix.astype("float32")))


def nearest_unvisited(locations: Tensor, regions: Tensor, visited: Tensor) -> tuple[Tensor, Tensor]:
    """For each look the centre of the nearest region that no earlier look had hit.

    Args:
        locations: `[N, T, 2]`.
        regions: `[N, R, 4]`.
        visited: `[N, T, R]`, as `first_visits` returns it.

    Returns:
        Targets `[N, T, 2]`, and `[N, T]`, 1 where there is one.
    """
    before = ops.concatenate([ops.zeros_like(visited[:, :1]), visited[:, :-1]], axis=1)
    there = ops.cast(regions[:, None, :, 2] > 0, "float32")
    wanted = there * (1.0 - before)
    distance = ops.sum(ops.square(locations[:, :, None] - regions[:, None, :, :2]), axis=-1)
    nearest = ops.one_hot(ops.argmin(distance + 1e3 * (1.0 - wanted), axis=-1), int(regions.shape[1]))
    return ops.matmul(nearest, regions[..., :2]), ops.max(wanted, axis=-1)


def check_regions(regions: NDArray[Any]) -> None:
    """Raises a `ValueError` of one sentence unless regions `[N, R, 4]` are finite and inside the image."""
    if regions.ndim != 3 or regions.shape[-1] != 4:
        raise ValueError(
            "Invalid shape for `regions`. Expected [images, regions, 4], each (y, x, half height, half width). "
            f"Received: {regions.shape}"
        )
    low, high = regions[..., :2] - regions[..., 2:], regions[..., :2] + regions[..., 2:]
    fits = (low >= -1 - 1e-4).all(-1) & (high <= 1 + 1e-4).all(-1) & (regions[..., 2:] >= 0).all(-1)
    if not fits.all():
        raise ValueError(
            "Invalid value for `regions`. Expected regions inside the image, which spans [-1, 1], and zeros where "
            f"there is none. Received: {regions[~fits][0].tolist()}"
        )
