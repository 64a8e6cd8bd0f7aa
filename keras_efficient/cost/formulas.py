"""Multiply-adds of Keras's own layers: one table by type, over the formulas of `ops.macs`.

Elementwise work counts nothing: activations, poolings, additions, the gates of recurrent cells, and normalisations (a
batch normalisation behind a convolution is folded into it).
"""

import math
from collections.abc import Callable
from typing import Any

from keras import layers

from keras_efficient.cost import recurrent
from keras_efficient.cost.calls import Call, channels, positions, spatial
from keras_efficient.cost.storage import own_weights
from keras_efficient.ops.macs import conv_macs, dense_macs


def own_macs(call: Call) -> float | None:
    """MACs per sample of one call, without those of layers inside, which are called themselves.

    None stands for a layer that has a matrix among its own weights and is not in the table: what it does with it cannot
    be known.
    """
    for kind, formula in FORMULAS:
        if isinstance(call.layer, kind):
            return float(formula(call))
    return None if any(len(weight.shape) > 1 for weight in own_weights(call.layer)) else 0.0


def _dense(call: Call) -> float:
    x, y = call.inputs[0], call.outputs[0]
    return positions(x) * float(dense_macs(x[-1], y[-1]))


def _einsum_dense(call: Call) -> float:
    return einsum_macs(call.layer.equation, (1, *call.inputs[0]), (1, *call.outputs[0]))


def _embedding(call: Call) -> float:
    return _dense(call) if call.arguments.get("reverse") else 0.0


def _conv(call: Call) -> float:
    layer, x, y = call.layer, call.inputs[0], call.outputs[0]
    in_channels = channels(layer, x) // layer.groups
    return float(conv_macs(spatial(layer, y), layer.kernel_size, in_channels, channels(layer, y)))


def _conv_transpose(call: Call) -> float:
    layer, x, y = call.layer, call.inputs[0], call.outputs[0]  # every input position meets the whole kernel
    return float(conv_macs(spatial(layer, x), layer.kernel_size, channels(layer, x), channels(layer, y)))


def _depthwise_conv(call: Call) -> float:
    layer, y = call.layer, call.outputs[0]
    return float(conv_macs(spatial(layer, y), layer.kernel_size, 1, channels(layer, y)))


def _separable_conv(call: Call) -> float:
    layer, x, y = call.layer, call.inputs[0], call.outputs[0]
    middle = channels(layer, x) * layer.depth_multiplier
    depthwise = conv_macs(spatial(layer, y), layer.kernel_size, 1, middle)
    pointwise = conv_macs(spatial(layer, y), (1,), middle, channels(layer, y))
    return float(depthwise + pointwise)


def _attention(call: Call) -> float:
    query, value = call.inputs[:2]  # [steps, features] each: scores, then their sum over the values
    key = call.inputs[2] if len(call.inputs) > 2 and len(call.inputs[2]) == 2 else value
    return query[0] * value[0] * float(dense_macs(1, key[-1]) + dense_macs(1, value[-1]))


def _multi_head_attention(call: Call) -> float:
    query, value = call.shape_of("query"), call.shape_of("value")
    assert query is not None
    assert value is not None
    axes = [axis % (len(query) + 1) - 1 for axis in call.layer.get_config()["attention_axes"]]  # there with the batch
    targets, sources = math.prod(query[axis] for axis in axes), math.prod(value[axis] for axis in axes)
    others = math.prod(size for axis, size in enumerate(query[:-1]) if axis not in axes)
    scores_and_sum = dense_macs(1, call.layer.key_dim) + dense_macs(1, call.layer.value_dim)
    return float(others * targets * sources * call.layer.num_heads * scores_and_sum)


def _grouped_query_attention(call: Call) -> float:
    query, value = call.shape_of("query"), call.shape_of("value")
    assert query is not None
    assert value is not None
    return float(query[0] * value[0] * call.layer.num_query_heads * dense_macs(2, call.layer.head_dim))


def _dot(call: Call) -> float:
    axes = call.layer.axes
    contracted = axes if isinstance(axes, int) else axes[0]
    length = call.inputs[0][contracted - 1 if contracted > 0 else contracted]
    return math.prod(call.outputs[0]) * float(dense_macs(1, length))


def _nothing(call: Call) -> float:
    return 0.0


def einsum_macs(equation: str, x: tuple[int, ...], y: tuple[int, ...]) -> float:
    """MACs of `einsum(equation, x, kernel)` from the shapes of `x` and of the result `y`: the product of all indices.

    Every index of the kernel is one of `x` or of `y`, since an index of the kernel alone would only be summed.
    """
    left, result = equation.replace(" ", "").split("->")
    sizes: dict[str, int] = {}
    total = 1
    for indices, shape in ((left.split(",")[0], x), (result, y)):
        head, dots, tail = indices.partition("...")
        end = len(shape) - len(tail)
        sizes.update(zip(head, shape, strict=False))
        sizes.update(zip(tail, shape[end:], strict=True))
        if dots:
            total = math.prod(shape[len(head) : end])
    return total * float(math.prod(sizes.values()))


Formula = Callable[[Call], float]
FORMULAS: list[tuple[Any, Formula]] = [
    (layers.EinsumDense, _einsum_dense),
    (layers.Dense, _dense),
    ((layers.SeparableConv1D, layers.SeparableConv2D), _separable_conv),
    ((layers.DepthwiseConv1D, layers.DepthwiseConv2D), _depthwise_conv),
    ((layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose), _conv_transpose),
    ((layers.Conv1D, layers.Conv2D, layers.Conv3D), _conv),
    (layers.Embedding, _embedding),
    (layers.GroupQueryAttention, _grouped_query_attention),
    (layers.MultiHeadAttention, _multi_head_attention),
    ((layers.Attention, layers.AdditiveAttention), _attention),
    (layers.Dot, _dot),
    (recurrent.CELLS, recurrent.cell_call_macs),
    (recurrent.LAYERS, recurrent.sequence_macs),
    # They hold weights of two and more dimensions, but no matrix that something is multiplied with.
    (
        (
            layers.BatchNormalization,
            layers.Discretization,
            layers.GroupNormalization,
            layers.LayerNormalization,
            layers.Normalization,
            layers.PReLU,
            layers.RMSNormalization,
            layers.SpectralNormalization,
        ),
        _nothing,
    ),
]
