"""`thin_resnet`: the residual networks that CIFAR methods are compared on."""

from collections.abc import Sequence
from typing import Any

import keras

Tensor = Any


def thin_resnet(
    depth: int = 20,
    width: int = 16,
    num_classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    name: str | None = None,
    blocks: Sequence[int] | None = None,
) -> keras.Model:
    """A residual network of `6 n + 2` layers in three stages of `n` basic blocks, ending in logits.

    The stages have `width`, `2 width` and `4 width` channels at full, half and quarter resolution. A block is two 3 x 3
    convolutions with batch normalisation; its shortcut is a strided 1 x 1 convolution where the shape changes. The
    outputs of the blocks are the layers `block_1` ... `block_{3n}`.

    >>> network = models.MultiExit.from_model(models.thin_resnet(20), [f"block_{k}" for k in range(1, 9)])

    Args:
        depth: 8, 14, 20, 32, 44, 56, 110, ...
        width: Channels of the first stage.
        num_classes: Number of logits.
        input_shape: Height, width and channels of the images.
        name: Of the model; `thin_resnet_<depth>` where None.
        blocks: Blocks of the three stages, `3 n` in all, instead of `n` in each. All blocks cost nearly the same, so
            `(1, 1, 3 n - 2)` costs what `(n, n, n)` does, and has all its channels after a third of the way: what early
            exits need.

    Raises:
        ValueError: If `depth` is not `6 n + 2`, `blocks` are not three positive numbers whose sum is `3 n`, or a size
            is not positive.

    Reference: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
    """
    counts = (thin_blocks(depth),) * 3 if blocks is None else _stage_blocks(blocks, depth)
    check_sizes(width, num_classes)
    x = inputs = keras.Input(input_shape, name="image")
    x = keras.layers.ReLU(name="stem")(convolution(x, width, 3, 1, "stem"))
    number = 0
    for stage, count in enumerate(counts):
        for first in (True, *[False] * (count - 1)):
            number += 1
            stride = 2 if stage > 0 and first else 1
            x = _basic_block(x, width * 2**stage, stride, f"block_{number}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = keras.layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, outputs, name=name or f"thin_resnet_{depth}")


def _basic_block(x: Tensor, filters: int, stride: int, name: str) -> Tensor:
    y = keras.layers.ReLU(name=f"{name}_relu_1")(convolution(x, filters, 3, stride, f"{name}_1"))
    y = convolution(y, filters, 3, 1, f"{name}_2")
    if stride != 1 or x.shape[-1] != filters:
        x = convolution(x, filters, 1, stride, f"{name}_shortcut")
    return keras.layers.ReLU(name=name)(keras.layers.Add(name=f"{name}_add")([x, y]))


def convolution(x: Tensor, filters: int, size: int, stride: int, name: str) -> Tensor:
    """A convolution without bias and its batch normalisation, `<name>_conv` and `<name>_bn`."""
    x = conv(filters, size, stride, f"{name}_conv")(x)
    return keras.layers.BatchNormalization(name=f"{name}_bn")(x)


def conv(filters: int, size: int, stride: int, name: str) -> keras.layers.Layer:
    """The convolution of `convolution` alone."""
    return keras.layers.Conv2D(filters, size, stride, "same", use_bias=False, kernel_initializer="he_normal", name=name)


def thin_blocks(depth: int) -> int:
    """Blocks in each of three stages of a network of `6 n + 2` layers: `n`."""
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"Invalid value for argument `depth`. Expected 6 n + 2 with n >= 1. Received: {depth}")
    return (depth - 2) // 6


def _stage_blocks(blocks: Sequence[int], depth: int) -> tuple[int, ...]:
    total = 3 * thin_blocks(depth)
    if len(blocks) != 3 or any(count < 1 for count in blocks) or sum(blocks) != total:
        raise ValueError(
            f"Invalid value for argument `blocks`. Expected three positive numbers whose sum is {total}, for depth "
            f"{depth}. Received: {tuple(blocks)}"
        )
    return tuple(blocks)


def check_sizes(width: int, num_classes: int) -> None:
    """Raises a `ValueError` of one sentence unless both are positive."""
    if width < 1 or num_classes < 1:
        raise ValueError(
            "Invalid value for argument `width` or `num_classes`. Expected positive numbers. "
            f"Received: {width} and {num_classes}"
        )
