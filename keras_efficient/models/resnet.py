"""`thin_resnet`: the residual networks that CIFAR methods are compared on."""

from typing import Any

import keras

Tensor = Any


def thin_resnet(
    depth: int = 20,
    width: int = 16,
    num_classes: int = 10,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    name: str | None = None,
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

    Raises:
        ValueError: If `depth` is not `6 n + 2`, or a size is not positive.

    Reference: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"Invalid value for argument `depth`. Expected 6 n + 2 with n >= 1. Received: {depth}")
    if width < 1 or num_classes < 1:
        raise ValueError(
            "Invalid value for argument `width` or `num_classes`. Expected positive numbers. "
            f"Received: {width} and {num_classes}"
        )
    x = inputs = keras.Input(input_shape, name="image")
    x = keras.layers.ReLU(name="stem")(_convolution(x, width, 3, 1, "stem"))
    blocks = (depth - 2) // 6
    for number in range(3 * blocks):
        stage, first = divmod(number, blocks)
        stride = 2 if stage > 0 and first == 0 else 1
        x = _basic_block(x, width * 2**stage, stride, f"block_{number + 1}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = keras.layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, outputs, name=name or f"thin_resnet_{depth}")


def _basic_block(x: Tensor, filters: int, stride: int, name: str) -> Tensor:
    y = keras.layers.ReLU(name=f"{name}_relu_1")(_convolution(x, filters, 3, stride, f"{name}_1"))
    y = _convolution(y, filters, 3, 1, f"{name}_2")
    if stride != 1 or x.shape[-1] != filters:
        x = _convolution(x, filters, 1, stride, f"{name}_shortcut")
    return keras.layers.ReLU(name=name)(keras.layers.Add(name=f"{name}_add")([x, y]))


def _convolution(x: Tensor, filters: int, size: int, stride: int, name: str) -> Tensor:
    x = keras.layers.Conv2D(
        filters, size, stride, "same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )(x)
    return keras.layers.BatchNormalization(name=f"{name}_bn")(x)
