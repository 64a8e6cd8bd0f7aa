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
    groups = x.shape[-1] // kernel.shape[2]
    if groups > 1 and keras.backend.backend() == "tensorflow" and ops.is_tensor(x):
        # TensorFlow has no gradients of grouped convolutions on processors for which it does not use oneDNN, and
        # `keras.ops.conv` hands them to XLA, whose training step on a CPU takes thirty times as long.
        pairs = zip(ops.split(x, groups, axis=-1), ops.split(kernel, groups, axis=-1), strict=True)
        found = [ops.conv(*pair, strides, padding, "channels_last", dilation_rate) for pair in pairs]
        return ops.concatenate(found, axis=-1)
    return ops.conv(x, kernel, strides, padding, "channels_last", dilation_rate)
