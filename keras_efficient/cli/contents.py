"""What a `.tflite` file holds, as plain values."""

import collections
from typing import Any

import numpy as np

from keras_efficient.tflite_export import flatbuffer, metadata
from keras_efficient.tflite_export.extras import require
from keras_efficient.tflite_export.prune import decomposition_indices


def describe(content: bytes) -> dict[str, Any]:
    """Inputs, outputs, ops with their forms and versions, subgraphs, sizes and metadata.

    Args:
        content: The file's bytes.

    Raises:
        ValueError: If they are no readable TFLite flatbuffer.
        ImportError: If LiteRT's schema is not installed; names the pip command.
    """
    model = flatbuffer.parse(content)
    decompositions = decomposition_indices(model)
    return {
        "bytes": len(content),
        "signatures": [_signature(model, entry) for entry in model.signatureDefs or []],
        "ops": _own_ops(model),
        "subgraphs": [_subgraph(model, index, index in decompositions) for index in range(len(model.subgraphs))],
        "metadata": metadata.read(model),
    }


def _signature(model: Any, entry: Any) -> dict[str, Any]:
    tensors = model.subgraphs[entry.subgraphIndex].tensors
    return {
        "key": flatbuffer.text(entry.signatureKey),
        "inputs": [_tensor(part.name, tensors[part.tensorIndex]) for part in entry.inputs],
        "outputs": [_tensor(part.name, tensors[part.tensorIndex]) for part in entry.outputs],
    }


def _tensor(name: Any, tensor: Any) -> dict[str, Any]:
    signature = tensor.shapeSignature
    sizes = tensor.shape if signature is None or len(signature) == 0 else signature
    return {
        "name": flatbuffer.text(name),
        "shape": [int(size) for size in (sizes if sizes is not None else [])],
        "dtype": type_names()[tensor.type],
    }


def type_names() -> dict[int, str]:
    """Tensor type codes to their names in lower case."""
    return {
        value: name.lower() for name, value in vars(flatbuffer.schema().TensorType).items() if isinstance(value, int)
    }


def _own_ops(model: Any) -> list[dict[str, Any]]:
    """The ops that a kernel of a delegate can run: composites, and custom ops."""
    flexbuffers = require("flatbuffers.flexbuffers", "tflite")
    counts: collections.Counter[tuple[str, str, int]] = collections.Counter()
    for subgraph in model.subgraphs:
        for operator in subgraph.operators or []:
            code, custom = flatbuffer.operator_code(model, operator)
            if code == flatbuffer.STABLEHLO_COMPOSITE:
                options = operator.builtinOptions2
                name, form, encoded = flatbuffer.text(options.name), "composite", options.compositeAttributes
            elif code == flatbuffer.CUSTOM:
                name, form, encoded = custom, "custom", operator.customOptions
            else:
                continue
            counts[name, form, _version(flexbuffers, encoded)] += 1
    return [
        {"name": name, "form": form, "version": version, "count": counts[name, form, version]}
        for name, form, version in sorted(counts)
    ]


def _version(flexbuffers: Any, encoded: Any) -> int:
    """The op version in a flexbuffer map, 0 where it says none."""
    try:
        return int(flexbuffers.Loads(bytearray(np.asarray(encoded, "uint8").tobytes()))["version"])
    except Exception:  # other people's custom options may hold anything
        return 0


def _subgraph(model: Any, index: int, decomposition: bool) -> dict[str, Any]:
    subgraph = model.subgraphs[index]
    names = flatbuffer.builtin_names()
    ops: collections.Counter[str] = collections.Counter()
    for operator in subgraph.operators or []:
        code, custom = flatbuffer.operator_code(model, operator)
        ops[custom or names.get(code, str(code))] += 1
    buffers = {int(tensor.buffer) for tensor in subgraph.tensors}
    sizes = [model.buffers[buffer].data for buffer in buffers]
    return {
        "index": index,
        "name": flatbuffer.text(subgraph.name),
        "decomposition": decomposition,
        "ops": dict(sorted(ops.items())),
        "tensors": len(subgraph.tensors),
        "constant_bytes": sum(len(data) for data in sizes if data is not None),
    }
