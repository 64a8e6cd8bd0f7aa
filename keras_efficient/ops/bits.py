"""Multi-bit weights as a file holds them: streams without gaps.

NumPy only; `ops.multi_bit_weights` unpacks them in `keras.ops`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_WIDTH = 8


class Packed(NamedTuple):
    """Multi-bit weights as a file holds them: three streams in the order output, group, basis, without gaps.

    Attributes:
        widths: uint8, the bit-width of every group in `width_bits(bases)` bits each.
        bits: uint8, `group_size` bits for every basis: 1 is -1.
        scales: float32, one for every basis.

    In both streams of bits the first bit is the least significant one of the first byte. Where no group has any basis
    there is one row of zeros, which no width reads.
    """

    widths: NDArray[np.uint8]
    bits: NDArray[np.uint8]
    scales: NDArray[np.float32]


def width_bits(bases: int) -> int:
    """Bits that the stream `widths` spends on a group, where `bases` is the largest width."""
    return int(bases).bit_length()


def stream_bytes(bits: int) -> int:
    """Bytes of a stream of so many bits, at least one."""
    return max(1, -(-bits // 8))


def pack(
    signs: NDArray[np.integer], scales: NDArray[np.floating], widths: NDArray[np.integer], bases: int | None = None
) -> Packed:
    """Packs the live bases of every group.

    Args:
        signs: `[O, G, I, n]` of -1 and 1; what lies behind a group's width is not read.
        scales: `[O, G, I]`.
        widths: `[O, G]`, 0 to `I`.
        bases: The op's attribute of that name, at least the largest width, which is the default.

    Raises:
        ValueError: If the shapes do not fit each other or a width is none.
    """
    signs, scales, widths = np.asarray(signs), np.asarray(scales, "float32"), np.asarray(widths)
    if signs.ndim != 4 or scales.shape != signs.shape[:3] or widths.shape != signs.shape[:2]:
        raise ValueError(
            "Invalid shapes for arguments `signs`, `scales` and `widths`. Expected [O, G, I, n], [O, G, I] and [O, G]. "
            f"Received: {signs.shape}, {scales.shape} and {widths.shape}"
        )
    most = min(signs.shape[2], MAX_WIDTH) if bases is None else min(signs.shape[2], bases, MAX_WIDTH)
    if widths.size and not 0 <= widths.min() <= widths.max() <= most:
        raise ValueError(
            f"Invalid value for argument `widths`. Expected bit-widths from 0 to {most}. "
            f"Received: {widths.min()} to {widths.max()}"
        )
    live = np.arange(signs.shape[2]) < widths[..., None]
    rows, values = signs[live] < 0, scales[live]
    if len(values) == 0:
        rows, values = np.zeros((1, signs.shape[3]), bool), np.zeros(1, "float32")
    return Packed(pack_widths(widths, int(widths.max(initial=0)) if bases is None else bases), _stream(rows), values)


def pack_widths(widths: NDArray[np.integer], bases: int) -> NDArray[np.uint8]:
    """The stream of `Packed.widths`; `bases` is the largest width."""
    return _stream(np.asarray(widths)[..., None] >> np.arange(width_bits(bases)) & 1)


def pack_codes(codes: NDArray[np.uint8], scales: NDArray[np.floating]) -> tuple[Packed, int]:
    """Packs codes `[O, G, n]`, whose bit i is the sign of basis i, and scales `[O, G, I]`; a scale of 0 is no basis.

    Returns:
        The packed form, live bases in their order, and the largest width.
    """
    scales = np.asarray(scales, "float32")
    order = np.argsort(scales == 0, axis=-1, kind="stable")
    live_first = np.take_along_axis(scales, order, -1)
    minus = np.asarray(codes, "uint8")[:, :, None, :] >> order[..., None].astype("uint8") & 1
    widths = np.count_nonzero(scales, axis=-1)
    return pack(1 - 2 * minus.astype("int8"), live_first, widths), int(widths.max(initial=0))


def unpack(
    packed: Packed, outputs: int, groups: int, group_size: int, bases: int
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.uint8]]:
    """The inverse of `pack`: signs `[O, G, bases, n]` (1 behind a group's width), scales (0 there) and widths."""
    size = width_bits(bases)
    codes = np.unpackbits(packed.widths, bitorder="little")[: outputs * groups * size].reshape(outputs, groups, size)
    widths = (codes << np.arange(size)).sum(-1).astype("uint8")
    live = np.arange(bases) < widths[..., None]
    signs, scales = np.ones((*live.shape, group_size), "int8"), np.zeros(live.shape, "float32")
    count = int(live.sum())
    rows = np.unpackbits(packed.bits, bitorder="little")[: count * group_size].reshape(count, group_size)
    signs[live], scales[live] = 1 - 2 * rows.astype("int8"), packed.scales[:count]
    return signs, scales, widths


def _stream(bits: NDArray[np.generic]) -> NDArray[np.uint8]:
    stream = np.packbits(np.asarray(bits, bool).ravel(), bitorder="little")
    return stream if stream.size else np.zeros(1, "uint8")
