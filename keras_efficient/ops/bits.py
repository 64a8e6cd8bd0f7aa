"""Weights as sums of scaled sign vectors: the greedy sketch of a float kernel and the packed form of files.

Source: Qu et al., "Adaptive Loss-aware Quantization for Multi-bit Networks", section 4 (structured sketching). NumPy
only; `ops.multi_bit_weights` unpacks in `keras.ops`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RELATIVE_ERROR_STOP = 1e-6
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


def sketch_group(weights: NDArray[np.floating], max_bases: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Approximates one group of weights `[n]` as `sum_i scales[i] * signs[i]`.

    Greedy residual binarisation: each new sign vector is the sign of the residual (0 counts as +1), after which all
    scales are refitted by least squares. Stops early when the residual's energy is below 1e-6 of the group's.

    Returns:
        signs: `[bases, n]` of -1 and 1.
        scales: `[bases]`, positive, ascending. There may be fewer than `max_bases`, none for a group of zeros.
    """
    w = np.asarray(weights, "float64")
    energy = float(w @ w)
    signs = np.zeros((0, w.size))
    scales = np.zeros(0)
    residual = w
    while len(signs) < min(max_bases, w.size) and energy > 0 and residual @ residual >= RELATIVE_ERROR_STOP * energy:
        signs = np.vstack([signs, np.where(residual >= 0, 1.0, -1.0)])
        scales = np.linalg.lstsq(signs.T, w, rcond=None)[0]
        residual = w - scales @ signs
    signs = signs * np.where(scales < 0, -1.0, 1.0)[:, None]
    scales = np.abs(scales)
    keep = np.argsort(scales)[np.count_nonzero(scales == 0) :]
    return signs[keep].astype("int8"), scales[keep].astype("float32")


def pack_signs(signs: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Packs signs `[..., n]` (n a multiple of 8) into `[..., n/8]` bytes: bit 1 is -1, least significant bit first."""
    if signs.shape[-1] % 8:
        raise ValueError(
            f"Invalid shape for argument `signs`. Expected a last dimension divisible by 8. Received: {signs.shape}"
        )
    return np.packbits(np.asarray(signs) < 0, axis=-1, bitorder="little")


def unpack_signs(packed: NDArray[np.uint8]) -> NDArray[np.int8]:
    """The inverse of `pack_signs`: `[..., n/8]` bytes to `[..., n]` signs."""
    return (1 - 2 * np.unpackbits(packed, axis=-1, bitorder="little").astype("int8")).astype("int8")


def sketch_dense_kernel(
    kernel: NDArray[np.floating], bases: int, group_size: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Sketches a dense kernel `[N, O]` in groups of `group_size` inputs per output (subchannelwise groups).

    The last group is padded with zeros to `group_size`; only its real weights are fitted. A group that needs fewer
    bases has scale 0 in the slots that it leaves.

    Returns:
        bits: `[O, P, bases, group_size / 8]` uint8.
        scales: `[O, P, bases]` float32.
    """
    inputs, outputs = kernel.shape
    groups = -(-inputs // group_size)
    signs = np.ones((outputs, groups, bases, group_size), "int8")
    scales = np.zeros((outputs, groups, bases), "float32")
    for output in range(outputs):
        for group in range(groups):
            weights = kernel[group * group_size : (group + 1) * group_size, output]
            found, alphas = sketch_group(weights, bases)
            signs[output, group, : len(found), : weights.size] = found
            scales[output, group, : len(found)] = alphas
    return pack_signs(signs), scales
