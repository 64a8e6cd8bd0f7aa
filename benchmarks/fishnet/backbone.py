"""The network that every method of this benchmark trains: a small residual one."""

from collections.abc import Callable
from typing import Any

import keras

from keras_efficient.layers.filter_sharing_grouped import grouped_conv

Tensor = Any
BLOCKS = ((2, 2), (2, 1), (4, 2))  # width and stride of each block, widths as multiples of the stem's


def backbone(
    input_shape: tuple[int, ...],
    width: int,
    seed: int,
    *,
    gate: Callable[[int], keras.layers.Layer] | None = None,
    columns: int = 1,
    between: Callable[[], keras.layers.Layer] | None = None,
) -> keras.Model:
    """Image to features `[B, 4 * width]`.

    Args:
        input_shape: Of an image.
        width: Channels of the stem.
        seed: Of the initial weights.
        gate: Makes a layer for the residual branch of block `k`, for methods that skip blocks.
        columns: Networks side by side in the channels, which read the same image.
        between: Makes a layer behind the stem and every block.
    """
    seeds = iter(range(1000 * seed, 1000 * seed + 1000))

    def convolution(x: Tensor, filters: int, size: int, stride: int, name: str) -> Tensor:
        initializer = keras.initializers.HeNormal(seed=next(seeds))
        kind = keras.layers.Conv2D if columns == 1 else _GroupedConv2D
        x = kind(
            filters * columns,
            size,
            stride,
            "same",
            groups=1 if x.shape[-1] == input_shape[-1] else columns,
            use_bias=False,
            kernel_initializer=initializer,
            name=f"{name}_conv",
        )(x)
        return keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)

    x = inputs = keras.Input(input_shape)
    x = keras.layers.ReLU(name="stem")(convolution(x, width, 3, 2, "stem"))
    for k, (multiple, stride) in enumerate(BLOCKS):
        x = x if between is None else between()(x)
        filters = width * multiple
        y = keras.layers.ReLU(name=f"block_{k}_relu")(convolution(x, filters, 3, stride, f"block_{k}_1"))
        y = convolution(y, filters, 3, 1, f"block_{k}_2")
        y = y if gate is None else gate(k)(y)
        if stride != 1 or x.shape[-1] != filters * columns:
            x = convolution(x, filters, 1, stride, f"block_{k}_shortcut")
        x = keras.layers.ReLU(name=f"block_{k}")(keras.layers.Add(name=f"block_{k}_add")([x, y]))
    x = x if between is None else between()(x)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="pool")(x), name="backbone")


class _GroupedConv2D(keras.layers.Conv2D):
    """As in Keras, with the convolution that trains fast on a CPU."""

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return grouped_conv(inputs, kernel, tuple(self.strides), self.padding)
