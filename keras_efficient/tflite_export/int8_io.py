"""Signatures that take and give 8 bits: QUANTIZE behind an input and DEQUANTIZE before an output are dropped."""

from typing import Any

from keras_efficient.tflite_export import flatbuffer
from keras_efficient.tflite_export.prune import drop_unused

QUANTIZE, DEQUANTIZE = "QUANTIZE", "DEQUANTIZE"


def to_int8_io(model: Any) -> None:
    """Makes the float inputs and outputs of a quantised file's signatures int8, in place.

    Raises:
        ValueError: If a float input is read, or a float output computed, by something else than (de)quantisation; the
            message names the op.
    """
    for entry in model.signatureDefs or []:
        subgraph = model.subgraphs[entry.subgraphIndex]
        for part in entry.inputs:
            _narrow_input(model, subgraph, part)
        for part in entry.outputs:
            _narrow_output(model, subgraph, part)
    drop_unused(model)


def _narrow_input(model: Any, subgraph: Any, part: Any) -> None:
    old = int(part.tensorIndex)
    if subgraph.tensors[old].type != flatbuffer.schema().TensorType.FLOAT32:
        return
    readers = [op for op in subgraph.operators if old in [int(index) for index in op.inputs]]
    for reader in readers:
        _expect(model, reader, QUANTIZE, f"input `{flatbuffer.text(part.name)}` is read")
    # Several readers quantise it alike, since all ranges come from the same calibration.
    new = int(readers[0].outputs[0])
    for reader in readers[1:]:
        _replace_reads(subgraph, int(reader.outputs[0]), new)
    subgraph.operators = [op for op in subgraph.operators if not any(op is reader for reader in readers)]
    part.tensorIndex = new
    subgraph.inputs = [new if int(index) == old else int(index) for index in subgraph.inputs]


def _narrow_output(model: Any, subgraph: Any, part: Any) -> None:
    old = int(part.tensorIndex)
    if subgraph.tensors[old].type != flatbuffer.schema().TensorType.FLOAT32:
        return
    writer = next(op for op in subgraph.operators if old in [int(index) for index in op.outputs])
    _expect(model, writer, DEQUANTIZE, f"output `{flatbuffer.text(part.name)}` is computed")
    new = int(writer.inputs[0])
    others = [op for op in subgraph.operators if old in [int(index) for index in op.inputs]]
    if not others:
        subgraph.operators = [op for op in subgraph.operators if op is not writer]
    part.tensorIndex = new
    subgraph.outputs = [new if int(index) == old else int(index) for index in subgraph.outputs]


def _expect(model: Any, operator: Any, wanted: str, what: str) -> None:
    code, custom = flatbuffer.operator_code(model, operator)
    name = custom or flatbuffer.builtin_names()[code]
    if name != wanted:
        raise ValueError(
            f"Invalid model for 8-bit inputs and outputs. Expected int8 throughout. Received: {what} by {name}"
        )


def _replace_reads(subgraph: Any, old: int, new: int) -> None:
    for operator in subgraph.operators:
        operator.inputs = [new if int(index) == old else int(index) for index in operator.inputs]
