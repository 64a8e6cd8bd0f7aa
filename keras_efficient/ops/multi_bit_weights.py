"""What `ke.multi_bit_dense` and `ke.multi_bit_conv_2d` share: packed weights of mixed bit-widths, multi-bit inputs.

The weights of one output, flattened, are cut into groups of `group_size` (the last one may be shorter). Group `p` of
output `o` is a sum of `widths[o, p]` sign vectors, its bases, each with a scale:

    W[o, p, k] = sum_i scales[o, p, i] * signs[o, p, i, k]        i < min(widths[o, p], max_bits)

(Qu et al., "Adaptive Loss-aware Quantization for Multi-bit Networks", section 3). Groups of width 0 are zeros. Bases
are ordered: `max_bits`, an input at run time, leaves out the last ones. `ops.bits.pack` makes the stored form: three
streams without any gaps, in the order output, group, basis.

Inputs may be multi-bit as well, `activation_bits` each, in the manner of section 5 of the same paper:

    x^ = levels[0] + sum_j levels[j] * d_j        d_j in {-1, 1}, the nearest of the 2^activation_bits levels
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_efficient.ops import bits as packing
from keras_efficient.ops.attributes import Attributes, attribute, choice
from keras_efficient.ops.gated_conv_2d import ACTIVATIONS
from keras_efficient.ops.registry import Argument, Shape, check_sizes

Tensor = Any

MAX_BITS = Argument("max_bits", "activation", 1, dtype="int32")
WEIGHTS = (
    Argument("widths", "weight", 1, dtype="uint8", packed=True),
    Argument("bits", "weight", 1, dtype="uint8", packed=True),
    Argument("scales", "weight", 1),
    Argument("levels", "weight", 1, trained=False),
    Argument("bias", "weight", 1),
)


@dataclasses.dataclass(frozen=True)
class MultiBitAttributes(Attributes):
    """Group size, largest bit-width, bits of the inputs (0: as they are) and activation."""

    group_size: int = attribute(64, minimum=1, maximum=2**24)
    bases: int = attribute(1, minimum=0, maximum=packing.MAX_WIDTH)
    activation_bits: int = attribute(0, minimum=0, maximum=3)
    activation: str = choice("linear", ACTIVATIONS)


def unpacked_signs(stream: Tensor, count: int) -> Tensor:
    """The first `count` bits of a stream `[bytes]` uint8 as floats, 1 for a bit of 0 and -1 for a bit of 1.

    Bit k of byte b is that of the square wave with half period `2^k` at b, whose sign is that of a sine: in builtin ops
    no other way is as short, and every runtime has these.
    """
    half_turns = ops.convert_to_tensor(np.pi * 2.0 ** -np.arange(8)[None], "float32")
    angles = ops.matmul(ops.expand_dims(ops.cast(stream, "float32"), -1), half_turns) + 0.5 * half_turns
    return _first(ops.reshape(ops.sign(ops.sin(angles)), (-1,)), count)


def unpacked_widths(stream: Tensor, groups: int, bases: int) -> Tensor:
    """Bit-widths `[groups, 1]` int32 of all groups, output by output; `bases` is at least 1."""
    size = packing.width_bits(bases)
    signs = ops.reshape(unpacked_signs(stream, groups * size), (groups, size))
    halves = ops.convert_to_tensor(2.0 ** (np.arange(size)[:, None] - 1), "float32")
    return ops.cast(ops.relu(ops.matmul(signs, -halves) + ops.sum(halves)), "int32")  # none is below 0


def float_weights(
    max_bits: Tensor,
    widths: Tensor,
    bits: Tensor,
    scales: Tensor,
    *,
    outputs: int,
    length: int,
    group_size: int,
    bases: int,
) -> Tensor:
    """The weights `[outputs, length]` that the packed form stands for."""
    groups, rows = outputs * -(-length // group_size), int(scales.shape[0])
    if bases == 0:
        return ops.zeros((outputs, length), scales.dtype)
    width = unpacked_widths(widths, groups, bases)
    basis = ops.arange(bases, dtype="int32")
    is_live = ops.cast(basis < _at_most(width, max_bits, bases), scales.dtype)
    row = ops.minimum(ops.cumsum(width, axis=0) - width + basis, rows - 1)
    signs = ops.cast(ops.reshape(unpacked_signs(bits, rows * group_size), (rows, group_size)), scales.dtype)
    terms = ops.take(signs * ops.expand_dims(scales, -1), row, axis=0)  # [groups, bases, group_size]
    weights = ops.matmul(ops.expand_dims(is_live, 1), terms)
    return _first(ops.reshape(weights, (outputs, -1)), length)


def _at_most(width: Tensor, max_bits: Tensor, bases: int) -> Tensor:
    """Widths, none of them above the smallest of `max_bits`; no operator where it is known to be `bases` or more."""
    if isinstance(max_bits, np.ndarray):
        return width if max_bits.min() >= bases else ops.minimum(width, int(max_bits.min()))
    return ops.minimum(width, max_bits if tuple(max_bits.shape) == (1,) else ops.min(max_bits))


def _first(x: Tensor, count: int) -> Tensor:
    """The first elements along the last axis; no operator where that is all of them."""
    return x if x.shape[-1] == count else x[..., :count]


def sorted_levels(levels: Tensor, activation_bits: int) -> Tensor:
    """All `2^activation_bits` levels in ascending order."""
    codes = np.arange(2**activation_bits)[:, None] >> np.arange(activation_bits) & 1
    signs = ops.convert_to_tensor(2.0 * codes - 1.0, levels.dtype)
    return ops.sort(levels[0] + ops.sum(signs * levels[1:], axis=-1))


def quantized_inputs(x: Tensor, levels: Tensor, activation_bits: int) -> Tensor:
    """Every input's nearest level; half-way between two it is the upper one. `activation_bits` 0: `x` itself."""
    if activation_bits == 0:
        return x
    values = sorted_levels(levels, activation_bits)
    nearest = ops.zeros_like(x) + values[0]
    for place in range(1, 2**activation_bits):
        middle = (values[place - 1] + values[place]) * 0.5
        nearest = ops.where(x >= middle, values[place], nearest)
    return nearest


def check_weights(name: str, shapes: Sequence[Shape], length: int | None, attributes: MultiBitAttributes) -> int:
    """Checks the sizes of `WEIGHTS` against each other for `length` weights of an output; returns the outputs."""
    widths, bits, scales, levels, bias = (shape[0] for shape in shapes)
    assert bias is not None
    assert scales is not None
    expected: dict[str, tuple[int | None, int | None]] = {
        "length of `levels`": (levels, attributes.activation_bits + 1),
        "bytes of `bits`": (bits, packing.stream_bytes(scales * attributes.group_size)),
    }
    if length is not None:
        groups = bias * -(-length // attributes.group_size)
        expected["bytes of `widths`"] = (widths, packing.stream_bytes(groups * packing.width_bits(attributes.bases)))
    check_sizes(name, expected)
    return bias


def weight_bytes(shapes: Sequence[Shape]) -> float:
    """Bytes of `WEIGHTS` as a file holds them."""
    widths, bits, *floats = (float(shape[0] or 0) for shape in shapes)
    return widths + bits + 4.0 * sum(floats)


def random_weights(
    rng: np.random.Generator, outputs: int, length: int, group_size: int, plain: bool
) -> tuple[list[np.ndarray], dict[str, int]]:
    """Random arrays for `max_bits` of one call and for `WEIGHTS`, and the attributes that belong to them.

    `plain` ones have a basis in every group, which `max_bits` keeps, and inputs as they are; of the others now and then
    all widths are 0.
    """
    groups = -(-length // group_size)
    most = int(rng.choice([0, 1, 2, 3, 8], p=[0.1, 0.2, 0.3, 0.3, 0.1]))
    widths = rng.integers(1, 4, (outputs, groups)) if plain else rng.integers(0, most + 1, (outputs, groups))
    bases = int(widths.max())
    signs = rng.choice([-1, 1], (outputs, groups, bases, group_size))
    scales = rng.uniform(0.1, 1.0, (outputs, groups, bases)).astype("float32") / np.float32(np.sqrt(length))
    activation_bits = 0 if plain else int(rng.choice(4))
    gammas = 0.4 * 2.0 ** np.arange(activation_bits) * rng.uniform(0.8, 1.2, activation_bits)
    levels = np.concatenate([rng.normal(0.0, 0.2, 1), gammas]).astype("float32")
    max_bits = np.full(1, packing.MAX_WIDTH if plain else rng.integers(0, 4), "int32")
    bias = rng.normal(size=outputs).astype("float32")
    attributes = {"group_size": group_size, "bases": bases, "activation_bits": activation_bits}
    return [max_bits, *packing.pack(signs, scales, widths), levels, bias], attributes
