"""Reading, editing and writing `.tflite` files through the object API of LiteRT's own schema."""

import copy
import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_efficient.tflite_export import sharing
from keras_efficient.tflite_export.extras import require

Model = Any
Subgraph = Any

IDENTIFIER = b"TFL3"
STABLEHLO_COMPOSITE = 206
CUSTOM = 32
PLACEHOLDER_FOR_GREATER_OP_CODES = 127

_DTYPES = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float64",
}


def schema() -> Any:
    """LiteRT's generated schema module."""
    return require("ai_edge_litert.schema_py_generated", "tflite")


def parse(content: bytes) -> Model:
    """A `.tflite` file's bytes as objects.

    Raises:
        ValueError: If the bytes are no readable TFLite flatbuffer.
    """
    if len(content) < 8 or content[4:8] != IDENTIFIER:
        raise ValueError(
            f"Invalid .tflite content. Expected a TFLite flatbuffer (identifier TFL3). Received: {len(content)} bytes"
            f" beginning with {content[:8]!r}"
        )
    utilities = require("ai_edge_litert.tools.flatbuffer_utils", "tflite")
    try:
        model = utilities.read_model_from_bytearray(bytearray(content))
        for subgraph in model.subgraphs:
            for operator in subgraph.operators or []:
                operator_code(model, operator)
            for tensor in subgraph.tensors or []:
                if tensor.quantization is not None and is_empty(tensor.quantization.scale):
                    tensor.quantization = None
    except Exception as error:
        raise ValueError(f"Truncated or corrupted .tflite content: {error}") from error
    return model


def is_empty(vector: Any) -> bool:
    """Whether a vector of the object API, which may be None, has no elements."""
    return vector is None or len(vector) == 0


def serialize(model: Model) -> bytes:
    """The bytes of a `.tflite` file; equal parts are in it once."""
    builder = sharing.builder_class()()
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def write_whole(path: pathlib.Path, content: bytes) -> None:
    """Writes a file whole or not at all: to a neighbour first, then renamed."""
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        pathlib.Path(partial).unlink(missing_ok=True)
        raise


def text(value: Any) -> str:
    """A name of the object API, bytes or str, as str."""
    return value.decode() if isinstance(value, bytes) else str(value or "")


def operator_code(model: Model, operator: Any) -> tuple[int, str]:
    """`(builtin code, custom code)` of an operator; the custom code is empty for builtin ones."""
    code = model.operatorCodes[operator.opcodeIndex]
    return max(int(code.builtinCode), int(code.deprecatedBuiltinCode)), text(code.customCode)


def is_builtin(model: Model, operator: Any, name: str) -> bool:
    """Whether an operator is the builtin one of that name."""
    return bool(operator_code(model, operator)[0] == getattr(schema().BuiltinOperator, name))


def producer(subgraph: Subgraph, index: int) -> Any:
    """The operator that makes a tensor; None for inputs and constants."""
    return next((op for op in subgraph.operators or [] if index in op.outputs), None)


def replace(subgraph: Subgraph, old: Sequence[int], new: int) -> None:
    """Reads one tensor wherever others were read."""
    for operator in subgraph.operators:
        operator.inputs = [new if index in old else int(index) for index in operator.inputs]
    subgraph.outputs = [new if index in old else int(index) for index in subgraph.outputs]


def builtin_names() -> dict[int, str]:
    """Builtin operator codes to their names."""
    return {value: name for name, value in vars(schema().BuiltinOperator).items() if isinstance(value, int)}


def opcode_index(model: Model, builtin: int, custom: str = "", version: int = 1) -> int:
    """The index of an operator code in the model's table, added where it is missing."""
    for index, code in enumerate(model.operatorCodes):
        known = max(int(code.builtinCode), int(code.deprecatedBuiltinCode))
        if known == builtin and text(code.customCode) == custom and int(code.version) == version:
            return index
    code = schema().OperatorCodeT()
    code.builtinCode = builtin
    code.deprecatedBuiltinCode = min(builtin, PLACEHOLDER_FOR_GREATER_OP_CODES)
    code.customCode = custom.encode() or None
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def constant(model: Model, tensor: Any) -> NDArray[Any] | None:
    """The value of a constant tensor in its shape, None where the tensor is no constant."""
    data = model.buffers[tensor.buffer].data
    if data is None or len(data) == 0:
        return None
    raw = np.asarray(data, "uint8").tobytes()
    return np.frombuffer(raw, _DTYPES[tensor.type]).reshape([int(size) for size in tensor.shape])


def add_buffer(model: Model, content: bytes) -> int:
    """Appends a buffer, or returns the index of one with the same content."""
    for index, known in enumerate(model.buffers):
        same_size = index > 0 and known.data is not None and len(known.data) == len(content)
        if same_size and np.asarray(known.data, "uint8").tobytes() == content:
            return index
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(content, "uint8")
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def add_constant(model: Model, subgraph: Subgraph, name: str, value: NDArray[Any]) -> int:
    """Appends a constant tensor to a subgraph; equal contents share one buffer. Returns the tensor's index."""
    tensor = schema().TensorT()
    tensor.name = name.encode()
    tensor.shape = list(value.shape)
    tensor.type = {dtype: code for code, dtype in _DTYPES.items()}[value.dtype.name]
    tensor.buffer = add_buffer(model, np.ascontiguousarray(value).tobytes())
    tensor.hasRank = True
    subgraph.tensors.append(tensor)
    return len(subgraph.tensors) - 1


def append_subgraph(model: Model, other: Model, source: Subgraph, name: str) -> int:
    """Copies a subgraph of another model to the end of `model`, its constants and operator codes with it."""
    subgraph = copy.deepcopy(source)
    subgraph.name = name.encode()
    for tensor in subgraph.tensors:
        data = other.buffers[tensor.buffer].data
        tensor.buffer = 0 if data is None or len(data) == 0 else add_buffer(model, np.asarray(data, "uint8").tobytes())
    for operator in subgraph.operators:
        builtin, custom = operator_code(other, operator)
        version = int(other.operatorCodes[operator.opcodeIndex].version)
        operator.opcodeIndex = opcode_index(model, builtin, custom, version)
    model.subgraphs.append(subgraph)
    return len(model.subgraphs) - 1


def signature(model: Model, key: str | None = None) -> Any:
    """The signature called `key` (the first one where None).

    Raises:
        ValueError: If the file has no such signature.
    """
    known = {text(entry.signatureKey): entry for entry in model.signatureDefs or []}
    if not known or (key is not None and key not in known):
        raise ValueError(f"Unknown signature {key!r}. Expected one of {sorted(known)}.")
    return known[key] if key is not None else next(iter(known.values()))


def set_metadata(model: Model, name: str, content: bytes) -> None:
    """Stores a named metadata buffer, replacing one of the same name."""
    model.metadata = [entry for entry in model.metadata or [] if text(entry.name) != name]
    buffer = schema().BufferT()
    buffer.data = np.frombuffer(content, "uint8")
    model.buffers.append(buffer)
    entry = schema().MetadataT()
    entry.name = name.encode()
    entry.buffer = len(model.buffers) - 1
    model.metadata.append(entry)


def get_metadata(model: Model, name: str) -> bytes | None:
    """The content of a named metadata buffer, None where there is none."""
    for entry in model.metadata or []:
        if text(entry.name) == name:
            return np.asarray(model.buffers[entry.buffer].data, "uint8").tobytes()
    return None
