"""What the converter leaves to be done around branches: 8 bits across their borders, and nothing computed in vain.

A tensor that a branch captures arrives there as float32, dequantised before the IF and quantised again behind it, and
copied at four times the size: here the 8 bits themselves are handed over. And where a policy reads one of an exit's
features, the others are computed all the same, joined and cut apart: here the cut takes its piece directly, and ops
that nobody reads any more are dropped.
"""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_efficient.tflite_export import flatbuffer

KEPT = {"IF", "WHILE", "CALL_ONCE", "ASSIGN_VARIABLE", "VAR_HANDLE", "READ_VARIABLE", "CUSTOM"}


def tighten(model: Any) -> None:
    """Rewrites a converted file in place; what it computes stays the same."""
    names = flatbuffer.builtin_names()
    kinds = [names[max(int(code.builtinCode), int(code.deprecatedBuiltinCode))] for code in model.operatorCodes]
    for subgraph in model.subgraphs:
        for operator in subgraph.operators or []:
            if kinds[operator.opcodeIndex] == "IF":
                _narrow_captures(model, kinds, subgraph, operator)
    for subgraph in model.subgraphs:
        _take_pieces(model, kinds, subgraph)
        _drop_unread(kinds, subgraph)


def _narrow_captures(model: Any, kinds: list[str], subgraph: Any, branch: Any) -> None:
    """Hands on int8 what is dequantised before an IF and quantised again by whoever reads it inside."""
    options = branch.builtinOptions
    sides = [model.subgraphs[options.thenSubgraphIndex], model.subgraphs[options.elseSubgraphIndex]]
    inputs = [int(index) for index in branch.inputs]
    for position, index in enumerate(inputs[1:]):
        writer = flatbuffer.producer(subgraph, index)
        if writer is None or kinds[writer.opcodeIndex] != "DEQUANTIZE":
            continue
        narrow = subgraph.tensors[int(writer.inputs[0])]
        if narrow.type != flatbuffer.schema().TensorType.INT8:
            continue
        readers = [list(_readers(side, int(side.inputs[position]))) for side in sides]
        outputs = any(int(side.inputs[position]) in [int(i) for i in side.outputs] for side in sides)
        if outputs or any(kinds[reader.opcodeIndex] != "QUANTIZE" for side in readers for reader in side):
            continue
        inputs[position + 1] = int(writer.inputs[0])
        for side, quantizers in zip(sides, readers, strict=True):
            _narrow_input(side, int(side.inputs[position]), narrow, quantizers)
    branch.inputs = inputs


def _narrow_input(side: Any, index: int, narrow: Any, quantizers: list[Any]) -> None:
    tensor = side.tensors[index]
    tensor.type = narrow.type
    tensor.quantization = copy.deepcopy(narrow.quantization)
    for quantizer in quantizers:
        given = int(quantizer.outputs[0])
        if not _same_scale(side.tensors[given], narrow):
            continue  # from int8 to int8 of another scale
        for operator in side.operators:
            operator.inputs = [index if int(i) == given else int(i) for i in operator.inputs]
        side.outputs = [index if int(i) == given else int(i) for i in side.outputs]
        side.operators = [operator for operator in side.operators if operator is not quantizer]


def _same_scale(first: Any, second: Any) -> bool:
    a, b = first.quantization, second.quantization
    return bool(np.array_equal(a.scale, b.scale) and np.array_equal(a.zeroPoint, b.zeroPoint))


def _take_pieces(model: Any, kinds: list[str], subgraph: Any) -> None:
    """Replaces a slice that is exactly one part of a CONCATENATION along the last axis by a RESHAPE of that part."""
    for operator in subgraph.operators or []:
        if kinds[operator.opcodeIndex] != "STRIDED_SLICE":
            continue
        joined = flatbuffer.producer(subgraph, int(operator.inputs[0]))
        if (
            joined is None
            or kinds[joined.opcodeIndex] != "CONCATENATION"
            or joined.builtinOptions.fusedActivationFunction
        ):
            continue
        piece = _piece(model, subgraph, operator, joined)
        if piece is None:
            continue
        given = subgraph.tensors[int(operator.outputs[0])]
        shape = np.asarray(given.shape if given.shapeSignature is None else given.shapeSignature, "int32")
        constant = flatbuffer.add_constant(model, subgraph, "piece/shape", shape)
        operator.opcodeIndex = flatbuffer.opcode_index(model, flatbuffer.schema().BuiltinOperator.RESHAPE)
        if operator.opcodeIndex == len(kinds):
            kinds.append("RESHAPE")
        operator.inputs = [piece, constant]
        operator.builtinOptionsType = flatbuffer.schema().BuiltinOptions.ReshapeOptions
        operator.builtinOptions = flatbuffer.schema().ReshapeOptionsT()
        operator.builtinOptions.newShape = shape


def _piece(model: Any, subgraph: Any, cut: Any, joined: Any) -> int | None:
    """The tensor that the slice takes whole, if it is one."""
    rank = len(subgraph.tensors[int(cut.inputs[0])].shape)
    options, bounds = (
        cut.builtinOptions,
        [flatbuffer.constant(model, subgraph.tensors[int(i)]) for i in cut.inputs[1:4]],
    )
    parts = [subgraph.tensors[int(index)] for index in joined.inputs]
    if rank != 2 or joined.builtinOptions.axis not in (1, -1) or any(len(part.shape) != 2 for part in parts):
        return None
    if any(bound is None or len(bound) != 2 for bound in bounds) or options.ellipsisMask or options.newAxisMask:
        return None
    begin, end, step = (np.asarray(bound) for bound in bounds)
    whole_rows = bool(options.beginMask & 1) and bool(options.endMask & 1) and not options.shrinkAxisMask & 1
    if not whole_rows or (step != 1).any() or options.beginMask & 2:
        return None
    width = sum(int(part.shape[1]) for part in parts)
    first = int(begin[1]) % width if begin[1] < 0 else int(begin[1])
    stop = int(end[1]) + width if end[1] < 0 else min(int(end[1]), width)
    last = first + 1 if options.shrinkAxisMask & 2 else width if options.endMask & 2 else stop
    start = 0
    for index, part in zip(joined.inputs, parts, strict=True):
        if start == first and start + int(part.shape[1]) == last:
            return int(index)
        start += int(part.shape[1])
    return None


def _drop_unread(kinds: list[str], subgraph: Any) -> None:
    """Drops ops without effects whose results nobody reads, until there is none."""
    while True:
        read = {int(index) for operator in subgraph.operators or [] for index in operator.inputs}
        read |= {int(index) for index in subgraph.outputs}
        left = [
            operator
            for operator in subgraph.operators or []
            if kinds[operator.opcodeIndex] in KEPT or any(int(index) in read for index in operator.outputs)
        ]
        if len(left) == len(subgraph.operators or []):
            return
        subgraph.operators = left


def _readers(subgraph: Any, index: int) -> Iterator[Any]:
    return (op for op in subgraph.operators or [] if index in [int(i) for i in op.inputs])
