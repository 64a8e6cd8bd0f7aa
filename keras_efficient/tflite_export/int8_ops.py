"""Convolutions and dense layers of ours in int8 files: what is between DEQUANTIZE and QUANTIZE becomes an int8 op.

The converter knows nothing of our ops and keeps them float32 between the integers that the fake-quant nodes asked for.
Scales and zero points stand in the file by then, so the op takes the integers themselves, and the conversions that
nobody needs any more go.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_efficient.ops.gate_net import gate_net
from keras_efficient.ops.gate_net_int8 import GateNetInt8Attributes, gate_net_int8
from keras_efficient.ops.gated_conv_2d import gated_conv_2d
from keras_efficient.ops.gated_conv_2d_int8 import (
    GatedConv2DInt8Attributes,
    gated_conv_2d_int8,
    quantized_bias,
    quantized_kernel,
)
from keras_efficient.ops.multi_bit_conv_2d import multi_bit_conv_2d
from keras_efficient.ops.multi_bit_conv_2d_int8 import MultiBitConv2DInt8Attributes, multi_bit_conv_2d_int8
from keras_efficient.ops.multi_bit_dense import multi_bit_dense
from keras_efficient.ops.multi_bit_dense_int8 import MultiBitDenseInt8Attributes, multi_bit_dense_int8
from keras_efficient.ops.registry import Op
from keras_efficient.tflite_export import flatbuffer
from keras_efficient.tflite_export.forms import Node
from keras_efficient.tflite_export.trace import Instance


def on_int8(model: Any, nodes: Sequence[Node]) -> list[Node]:
    """Rewrites the ops that have int8 on both sides and a twin for it; the other nodes come back as they are."""
    rewritten = [_rewritten(model, node) for node in nodes]
    for subgraph in model.subgraphs:
        drop_idle_conversions(model, subgraph)
    return rewritten


def _rewritten(model: Any, node: Node) -> Node:
    if node.instance.op is gate_net:
        return _reading_int8(model, node)
    return _on_int8(model, node) if node.instance.op.name in _TWINS else node


def _reading_int8(model: Any, node: Node) -> Node:
    """A gate net with int8 in front; gates are floats."""
    x = _before_dequantize(model, node.subgraph, node.dynamic[0])
    source = None if x is None else quantization(node.subgraph.tensors[x])
    if source is None:
        return node
    attributes = GateNetInt8Attributes(
        **dataclasses.asdict(node.instance.attributes), input_scale=source[0], input_zero_point=source[1]
    )
    node.operator.inputs = [x]
    node.operator.opcodeIndex = flatbuffer.opcode_index(model, flatbuffer.CUSTOM, gate_net_int8.name)
    return Node(node.subgraph, node.operator, Instance(gate_net_int8, attributes), node.weights)


def _on_int8(model: Any, node: Node) -> Node:
    subgraph, operator = node.subgraph, node.operator
    x = _before_dequantize(model, subgraph, node.dynamic[0])
    gates = [_behind(model, subgraph, index) for index in node.dynamic[1:]]
    readers = [op for op in subgraph.operators if operator.outputs[0] in op.inputs]
    targets = [int(op.outputs[0]) for op in readers if flatbuffer.is_builtin(model, op, "QUANTIZE")]
    given = operator.outputs[0] in subgraph.outputs
    if x is None or given or not targets or len(targets) < len(readers):
        return node
    source, target = (quantization(subgraph.tensors[index]) for index in (x, targets[0]))
    if source is None or target is None or any(quantization(subgraph.tensors[t]) != target for t in targets):
        return node
    twin, attributes_of, weights_of = _TWINS[node.instance.op.name]
    attributes = attributes_of(
        **dataclasses.asdict(node.instance.attributes),
        input_scale=source[0],
        input_zero_point=source[1],
        output_scale=target[0],
        output_zero_point=target[1],
    )
    operator.inputs = [x, *gates]
    operator.outputs = [targets[0]]
    operator.opcodeIndex = flatbuffer.opcode_index(model, flatbuffer.CUSTOM, twin.name)
    flatbuffer.replace(subgraph, targets[1:], targets[0])
    subgraph.operators = [op for op in subgraph.operators if not any(op is reader for reader in readers)]
    return Node(subgraph, operator, Instance(twin, attributes), weights_of(node, source[0]))


def _quantized_weights(node: Node, input_scale: float) -> list[Any]:
    kernel, kernel_scale = quantized_kernel(node.weights[0])
    return [kernel, kernel_scale, quantized_bias(node.weights[1], input_scale, kernel_scale)]


def _same_weights(node: Node, _: float) -> list[Any]:
    return node.weights


_TWINS: dict[str, tuple[Op, type[Any], Callable[[Node, float], list[Any]]]] = {
    gated_conv_2d.name: (gated_conv_2d_int8, GatedConv2DInt8Attributes, _quantized_weights),
    multi_bit_conv_2d.name: (multi_bit_conv_2d_int8, MultiBitConv2DInt8Attributes, _same_weights),
    multi_bit_dense.name: (multi_bit_dense_int8, MultiBitDenseInt8Attributes, _same_weights),
}
"""By op: the same on int8, its attributes, and what becomes of the weights."""


def _before_dequantize(model: Any, subgraph: Any, index: int) -> int | None:
    """The int8 tensor whose real values the tensor holds, None where there is none."""
    made_by = flatbuffer.producer(subgraph, index)
    if made_by is None or not flatbuffer.is_builtin(model, made_by, "DEQUANTIZE"):
        return None
    source = int(made_by.inputs[0])
    return source if subgraph.tensors[source].type == flatbuffer.schema().TensorType.INT8 else None


def _behind(model: Any, subgraph: Any, index: int) -> int:
    """A gate's own float tensor, where the file takes it through int8 and back; which channels are shut stays exact."""
    source = _before_dequantize(model, subgraph, index)
    made_by = None if source is None else flatbuffer.producer(subgraph, source)
    if made_by is None or not flatbuffer.is_builtin(model, made_by, "QUANTIZE"):
        return index
    return int(made_by.inputs[0])


def quantization(tensor: Any) -> tuple[float, int] | None:
    """Scale and zero point of an int8 tensor that has one of each."""
    found = tensor.quantization
    if tensor.type != flatbuffer.schema().TensorType.INT8 or found is None or found.scale is None:
        return None
    return (float(np.float32(found.scale[0])), int(found.zeroPoint[0])) if len(found.scale) == 1 else None


def drop_idle_conversions(model: Any, subgraph: Any) -> None:
    """Removes conversions between integers and floats whose result nobody reads."""
    while True:
        read = {int(index) for op in subgraph.operators for index in op.inputs} | {int(i) for i in subgraph.outputs}
        idle = [
            op
            for op in subgraph.operators
            if (flatbuffer.is_builtin(model, op, "QUANTIZE") or flatbuffer.is_builtin(model, op, "DEQUANTIZE"))
            and int(op.outputs[0]) not in read
        ]
        if not idle:
            return
        subgraph.operators = [op for op in subgraph.operators if not any(op is other for other in idle)]
