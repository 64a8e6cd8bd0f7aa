"""The conditions of the Edge TPU's operators. A rule takes a node and gives one sentence and a mend, or None."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from keras_efficient.tflite_export.targets.graph import Node, Operand

INNER_DIMENSIONS = 3
SOFTMAX_ELEMENTS = 16_000
LARGEST_MEAN = 64 * 128
EIGHT_BITS = ("int8", "uint8")


class Violation(NamedTuple):
    """What is wrong, how to mend it, and whether it is only possible that the compiler minds."""

    reason: str
    mend: str
    doubt: bool = False


Rule = Callable[[Node], Violation | None]


def eight_bits(node: Node) -> Violation | None:
    """All tensors between operators have 8 bits; constants may be int32 (bias, axes) as well."""
    for operand in (*node.activations, *node.outputs):
        if operand.type not in EIGHT_BITS:
            return Violation(
                f"{operand} is not int8.", "Quantise the whole model: int8 weights and activations, inputs and outputs."
            )
    for parameter in node.inputs:
        if parameter is not None and parameter.constant and "float" in parameter.type:
            return Violation(
                f"The constant {parameter} is not int8.", "Quantise the whole model: weights and constants, too."
            )
    return None


def three_inner_dimensions(node: Node) -> Violation | None:
    """Only the three innermost dimensions may be above 1, so the batch is 1."""
    for operand in (*node.activations, *node.outputs):
        if any(size > 1 for size in operand.shape[:-INNER_DIMENSIONS]):
            return Violation(
                f"{operand} has a size above 1 in front of its three inner dimensions.",
                "Export with batch_size=1, and fold further dimensions into height, width or channels.",
            )
    return None


def constant_parameters(node: Node) -> Violation | None:
    data = 2 if node.operator == "TRANSPOSE_CONV" else 0
    for place, operand in enumerate(node.inputs):
        if place != data and operand is not None and not operand.constant:
            return Violation(
                f"The parameter {operand} is computed, not constant.",
                "Weights must be constants of the file; multiply activations with MUL instead.",
            )
    return None


def no_fused_activation(node: Node) -> Violation | None:
    if node.option("fusedActivationFunction"):
        return Violation("It has a fused activation.", "Let the activation be an operator of its own.")
    return None


def same_dilation(node: Node) -> Violation | None:
    width, height = node.option("dilationWFactor", 1), node.option("dilationHFactor", 1)
    if width != height:
        return Violation(f"Its dilation is {height} by {width}.", "Use the same dilation in both directions.")
    return None


def not_grouped(node: Node) -> Violation | None:
    image, kernel = node.inputs[0], node.inputs[1]
    if image is None or kernel is None or len(kernel.shape) != 4 or len(image.shape) != 4:
        return None
    if kernel.shape[3] != image.shape[3]:
        return Violation(
            f"It is grouped: each filter reads {kernel.shape[3]} of {image.shape[3]} channels.",
            "Use groups=1, or split the channels, convolve and concatenate.",
        )
    return None


def default_weights(node: Node) -> Violation | None:
    if node.option("weightsFormat"):
        return Violation("Its weights are shuffled.", "Convert without shuffled weights.")
    return None


def one_scale_weights(node: Node) -> Violation | None:
    weights = node.inputs[1]
    if weights is not None and weights.scales > 1:
        return Violation(
            f"Its weights have {weights.scales} scales; until 2024, long after the compiler, converters wrote one.",
            "Convert dense layers per tensor, as export(target='coral') does.",
            doubt=True,
        )
    return None


def one_dimensional_output(node: Node) -> Violation | None:
    return _one_dimensional(node.outputs[0], "output")


def one_dimensional_input(node: Node) -> Violation | None:
    return None if node.inputs[0] is None else _one_dimensional(node.inputs[0], "input")


def _one_dimensional(operand: Operand, side: str) -> Violation | None:
    if any(size > 1 for size in operand.shape[:-1]):
        return Violation(
            f"Its {side} {operand} has more than one dimension.",
            "Flatten or pool before it, or use a 1 x 1 convolution.",
        )
    return None


def at_most_16000(node: Node) -> Violation | None:
    operand = node.inputs[0]
    if operand is not None and np.prod(operand.shape) > SOFTMAX_ELEMENTS:
        return Violation(f"Its input {operand} has more than {SOFTMAX_ELEMENTS:,} elements.", "Do it on the host.")
    return None


def zero_constant(node: Node) -> Violation | None:
    constants = [operand for operand in node.inputs if operand is not None and operand.constant]
    if not constants:
        return None
    zeros = all(operand.value is not None and (operand.value == operand.zero_point).all() for operand in constants)
    if len(node.inputs) > 2 or not zeros:
        return Violation("It joins a constant that is not zero, or more than two inputs.", "Pad with zeros instead.")
    return None


def not_over_batch(node: Node) -> Violation | None:
    axes = _axes(node)
    if axes is None:
        return Violation("Its axes are computed.", "Give the axes as constants.")
    return Violation("It runs over the batch.", "Reduce height and width only.") if 0 in axes else None


def channels_by_four(node: Node) -> Violation | None:
    axes, operand = _axes(node), node.inputs[0]
    if not axes or operand is None or len(operand.shape) - 1 not in axes or operand.shape[-1] % 4 == 0:
        return None
    return Violation(
        f"It runs over {operand.shape[-1]} channels, which is no multiple of 4.",
        "Reduce height and width only, or pad the channels.",
    )


def _axes(node: Node) -> set[int] | None:
    operand, axes = node.inputs[0], node.inputs[1] if len(node.inputs) > 1 else None
    if operand is None or axes is None or axes.value is None:
        return None
    return {int(axis) % max(len(operand.shape), 1) for axis in axes.value.reshape(-1)}


def axis_not_batch(node: Node) -> Violation | None:
    if node.operator == "SPLIT":
        axis = node.inputs[0]
        place = None if axis is None or axis.value is None else int(axis.value.reshape(-1)[0])
    else:
        place = node.option("axis")
    rank = len(node.outputs[0].shape)
    if place is None or place % max(rank, 1) == 0:
        return Violation("It runs along the batch, or along a computed axis.", "Use another, constant axis.")
    return None


def no_batch_padding(node: Node) -> Violation | None:
    paddings = node.inputs[1]
    if paddings is None or paddings.value is None:
        return Violation("Its paddings are computed.", "Give the paddings as constants.")
    if np.any(paddings.value.reshape(-1, 2)[0]):
        return Violation("It pads the batch.", "Pad height, width or channels only.")
    return None


def one_dimensional_slopes(node: Node) -> Violation | None:
    slopes = node.inputs[1]
    if slopes is not None and any(size > 1 for size in slopes.shape[:-1]):
        return Violation(f"Its slopes {slopes} have more than one dimension.", "Use PReLU(shared_axes=[1, 2]).")
    return None


def leading_ones(node: Node) -> Violation | None:
    operand = node.inputs[0]
    if operand is not None and _stripped(operand.shape) != _stripped(node.outputs[0].shape):
        return Violation(f"It takes a 1 out of the middle of {operand}.", "Reshape instead.")
    return None


def _stripped(shape: tuple[int, ...]) -> tuple[int, ...]:
    first = next((place for place, size in enumerate(shape) if size != 1), len(shape))
    return shape[first:]


def unit_strides(node: Node) -> Violation | None:
    strides = node.inputs[3] if len(node.inputs) > 3 else None
    if strides is None or strides.value is None or np.any(strides.value != 1):
        return Violation("Its strides are not all 1.", "Use a convolution or a pooling layer with strides.")
    if node.option("ellipsisMask") or node.option("newAxisMask"):
        return Violation("It has an ellipsis or a new axis.", "Name every axis in the slice.")
    return None


def large_map(node: Node) -> Violation | None:
    operand = node.inputs[0]
    if operand is not None and np.prod(operand.shape[:-1]) > LARGEST_MEAN:
        return Violation(
            f"The map {operand} has more positions than the largest mean that is known to be mapped, {LARGEST_MEAN:,}.",
            "Pool before it; a mean of 256 x 128 positions was seen to stay on the CPU, one of 64 x 128 was mapped.",
            doubt=True,
        )
    return None


def may_stay(node: Node) -> Violation | None:
    return Violation(
        f"{node.outputs[0]} may stay on the CPU, by its size.",
        "Keep resized maps small, or use a transposed convolution.",
        doubt=True,
    )


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        constant_parameters,
        no_fused_activation,
        same_dilation,
        not_grouped,
        default_weights,
        one_scale_weights,
        one_dimensional_output,
        one_dimensional_input,
        at_most_16000,
        zero_constant,
        not_over_batch,
        channels_by_four,
        axis_not_batch,
        no_batch_padding,
        one_dimensional_slopes,
        leading_ones,
        unit_strides,
        large_map,
        may_stay,
    )
}
"""By the names that the rows of the table use."""
GENERAL: tuple[Rule, ...] = (eight_bits, three_inner_dimensions)
"""What holds for every operator."""
