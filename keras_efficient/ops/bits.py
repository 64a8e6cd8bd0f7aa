"""Weights as sums of scaled sign vectors: the greedy sketch of a float kernel and the packing of signs into bits.

Source: Qu et al., "Adaptive Loss-aware Quantization for Multi-bit Networks", section 4 (structured sketching). NumPy
    only.
"""

import numpy as np
from numpy.typing import NDArray

RELATIVE_ERROR_STOP = 1e-6


def sketch_group(weights: NDArray[np.floating], max_bases: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Approximates one group of weights `[n]` as `sum_i scales[i] * signs[i]`.

    Greedy residual binarisation: each new sign vector is the sign of the residual (0 counts as +1), after which all
        scales
    are refitted by least squares. Stops early when the residual's energy is below 1e-6 of the group's.

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
