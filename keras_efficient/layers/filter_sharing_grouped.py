"""Grouped convolution, which computes the filters of several tasks at once."""

from typing import Any

import keras
from keras import ops

Tensor = Any


def grouped_conv(
    x: Tensor, kernel: Tensor, strides: tuple[int, int], padding: str, dilation_rate: tuple[int, int] = (1, 1)
) -> Tensor:
    """As `keras.ops.conv`, channels last, with as many groups as the kernel's input channels fit into those of `x`.

    Args:
        x: `[B, H, W, groups C]`.
        kernel: `[h, w, C, groups F]`.
        strides, padding, dilation_rate: As in `keras.ops.conv`.

    Returns:
        `[B, H', W', groups F]`.
    """
    if keras.backend.backend() == "tensorflow" and x.shape[-1] != kernel.shape[2] and ops.is_tensor(x):
        # `keras.ops.conv` hands grouped convolutions to XLA, whose training step on a CPU takes thirty times as long.
        import tensorflow as tf

        return tf.nn.conv2d(x, kernel, strides, padding.upper(), dilations=dilation_rate)
    return ops.conv(x, kernel, strides, padding, "channels_last", dilation_rate)
