"""Codes and scales as a `.keras` file holds them: live bases alone, bits packed without gaps."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class LiveBases(NamedTuple):
    """The live bases of R groups of n weights.

    Attributes:
        widths: `[R]` uint8, how many each group has.
        bits: uint8, n bits per basis, group by group, 1 for -1, the least significant one first.
        scales: float32, one per basis.
    """

    widths: NDArray[np.uint8]
    bits: NDArray[np.uint8]
    scales: NDArray[np.float32]


def packed(codes: NDArray[np.uint8], scales: NDArray[np.float32]) -> LiveBases:
    """The live bases of codes `[R, n]` and scales `[R, I]`, in their order."""
    live = scales != 0
    signs = np.unpackbits(codes[:, None, :], axis=1, bitorder="little", count=scales.shape[1])
    bits = np.packbits(signs[live], bitorder="little")
    return LiveBases(np.count_nonzero(live, axis=1).astype("uint8"), bits, scales[live])


def unpacked(stored: LiveBases, size: int, bases: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The inverse of `packed`: codes `[R, size]` and scales `[R, bases]`.

    Raises:
        ValueError: If the sizes do not fit each other.
    """
    rows, count = len(stored.widths), int(stored.widths.sum(dtype="int64"))
    fits = stored.scales.shape == (count,) and stored.bits.shape == (-(-count * size // 8),)
    if not fits or stored.widths.max(initial=0) > bases:
        raise ValueError(
            f"Invalid packed bases. Expected up to {bases} per group, with a scale and {size} bits each. Received: "
            f"{rows} groups with {count} bases, at most {stored.widths.max(initial=0)} in one, {stored.scales.size} "
            f"scales and {stored.bits.size} bytes of bits"
        )
    live = np.arange(bases)[None, :] < stored.widths[:, None]
    scales = np.zeros((rows, bases), "float32")
    scales[live] = stored.scales
    signs = np.zeros((rows, bases, size), "uint8")
    signs[live] = np.unpackbits(stored.bits, count=count * size, bitorder="little").reshape(count, size)
    return np.packbits(signs, axis=1, bitorder="little")[:, 0], scales


def sorted_bases(
    codes: NDArray[np.uint8], scales: NDArray[np.float32]
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.intp]]:
    """The same weights with positive scales in descending order, and the order `[R, I]` that makes it so."""
    signs = np.unpackbits(codes[:, None, :], axis=1, bitorder="little", count=scales.shape[1])
    signs = signs ^ (scales < 0)[:, :, None]
    order = np.argsort(-np.abs(scales), axis=1, kind="stable")
    scales = np.take_along_axis(np.abs(scales), order, axis=1)
    signs = np.take_along_axis(signs, order[:, :, None], axis=1) & (scales > 0)[:, :, None]
    return np.packbits(signs, axis=1, bitorder="little")[:, 0], scales, order
