"""The only formulas for multiply-adds (MACs). One MAC is one multiplication with its addition.

The channel counts may be Python numbers (dense cost) or tensors `[B]` of open channels (executed cost), so budgets,
profiles and kernel counters all come from the same line.
"""

import math
from collections.abc import Sequence
from typing import Any

Count = Any


def conv_macs(
    output_spatial: Sequence[int], kernel_spatial: Sequence[int], in_channels: Count, out_channels: Count
) -> Count:
    """MACs of a convolution per sample: positions x kernel size x input channels x output channels."""
    return float(math.prod(output_spatial) * math.prod(kernel_spatial)) * in_channels * out_channels


def dense_macs(in_features: Count, out_features: Count) -> Count:
    """MACs of a matrix-vector product per sample (per position, for inputs of a higher rank)."""
    return 1.0 * in_features * out_features


def conv_output_length(length: int, kernel: int, stride: int, dilation: int, padding: str) -> int:
    """Length of one spatial dimension after a convolution with `padding` "same" or "valid"."""
    if padding == "same":
        return -(-length // stride)
    return (length - dilation * (kernel - 1) - 1) // stride + 1
