"""A subgraph of a `.tflite` file as plain nodes and operands, for whoever judges operators."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_efficient.tflite_export import flatbuffer


@dataclasses.dataclass(frozen=True)
class Operand:
    """A tensor.

    Attributes:
        index: In its subgraph.
        name: In the file.
        type: Such as `"int8"`.
        shape: Its sizes; 1 where the file leaves one open.
        open_shape: Whether some size is known only at run time.
        constant: Whether the file holds its value.
        value: The value of a constant of a plain type, else None.
        scales: Number of quantisation scales: 0 float, 1 per tensor, more per channel.
        zero_point: The integer that stands for 0.0.
    """

    index: int
    name: str
    type: str
    shape: tuple[int, ...]
    open_shape: bool
    constant: bool
    value: NDArray[Any] | None
    scales: int
    zero_point: int

    def __str__(self) -> str:
        return f"`{self.name}` {self.type} {list(self.shape)}"


@dataclasses.dataclass(frozen=True)
class Node:
    """An operator: its place in the subgraph, name, version, operands (None where one is left out) and options."""

    index: int
    operator: str
    custom: str
    version: int
    inputs: tuple[Operand | None, ...]
    outputs: tuple[Operand, ...]
    options: Any

    @property
    def activations(self) -> tuple[Operand, ...]:
        """Operands that are computed, not constant."""
        return tuple(operand for operand in self.inputs if operand is not None and not operand.constant)

    def option(self, name: str, default: int = 0) -> int:
        """An option by the name that LiteRT's schema gives it, or the schema's default."""
        found = getattr(self.options, name, default)
        return default if found is None else int(found)


@dataclasses.dataclass(frozen=True)
class Graph:
    """A subgraph: its operands, its nodes in the order of execution, indices of its inputs and outputs."""

    operands: tuple[Operand, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_graph(model: Any, index: int = 0) -> Graph:
    """A subgraph of a parsed file."""
    subgraph = model.subgraphs[index]
    operands = tuple(_operand(model, number, tensor) for number, tensor in enumerate(subgraph.tensors))
    nodes = []
    for place, operator in enumerate(subgraph.operators or []):
        code, custom = flatbuffer.operator_code(model, operator)
        nodes.append(
            Node(
                place,
                _names("BuiltinOperator").get(code, f"BUILTIN_{code}"),
                custom,
                int(model.operatorCodes[operator.opcodeIndex].version),
                tuple(operands[i] if i >= 0 else None for i in _indices(operator.inputs)),
                tuple(operands[i] for i in _indices(operator.outputs)),
                operator.builtinOptions,
            )
        )
    return Graph(operands, tuple(nodes), tuple(_indices(subgraph.inputs)), tuple(_indices(subgraph.outputs)))


def _operand(model: Any, index: int, tensor: Any) -> Operand:
    data = model.buffers[tensor.buffer].data
    constant = data is not None and len(data) > 0
    type_name = _names("TensorType").get(int(tensor.type), str(tensor.type)).lower()
    shape = tuple(int(size) for size in (tensor.shape if tensor.shape is not None else ()))
    signature = tensor.shapeSignature
    quantization = tensor.quantization
    scale = None if quantization is None else quantization.scale
    zeros = None if quantization is None else quantization.zeroPoint
    return Operand(
        index,
        flatbuffer.text(tensor.name),
        type_name,
        shape,
        signature is not None and any(int(size) < 0 for size in signature),
        constant,
        _value(data, type_name, shape) if constant else None,
        0 if scale is None else len(scale),
        0 if zeros is None or len(zeros) == 0 else int(zeros[0]),
    )


def _value(data: Any, type_name: str, shape: tuple[int, ...]) -> NDArray[Any] | None:
    if type_name not in ("int8", "uint8", "int16", "int32", "int64", "float32"):
        return None
    raw = np.asarray(data, "uint8").tobytes()
    dtype = np.dtype(type_name)
    return np.frombuffer(raw, dtype).reshape(shape) if len(raw) == dtype.itemsize * math.prod(shape) else None


@functools.cache
def _names(enumeration: str) -> dict[int, str]:
    values = vars(getattr(flatbuffer.schema(), enumeration))
    return {value: name for name, value in values.items() if isinstance(value, int)}


def _indices(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]
