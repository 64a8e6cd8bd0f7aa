"""The three forms of an op in a file: composite with a decomposition, custom op, or nothing but builtin ops.

The traced file (see `trace`) holds each op as a custom op whose weights are constants; here those become either custom
ops with encoded attributes and weights in device layout, or `STABLEHLO_COMPOSITE` ops whose decomposition holds
weights and reference.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_efficient.ops import context
from keras_efficient.ops.registry import Argument, Op
from keras_efficient.tflite_export import compaction, flatbuffer
from keras_efficient.tflite_export.extras import require
from keras_efficient.tflite_export.trace import INSTANCE, Instance, convert

Array = NDArray[Any]


@dataclasses.dataclass
class Node:
    """One op of ours in the flatbuffer: where it stands, which call it came from, and the constants it uses."""

    subgraph: Any
    operator: Any
    instance: Instance
    weights: list[Array]

    @property
    def dynamic(self) -> list[int]:
        """Tensor indices of the inputs that are no weights."""
        return [int(index) for index in self.operator.inputs[: len(self.instance.op.arguments) - len(self.weights)]]


def find_nodes(
    model: Any, instances: Sequence[Instance], layers_of: Callable[[str], list[str]] = lambda _: []
) -> list[Node]:
    """All ops of ours in a traced flatbuffer; `layers_of` names the layers behind a type of TensorFlow op.

    Raises:
        ValueError: If a custom op is not ours (the converter could not express a layer), or a weight is not constant.
    """
    flexbuffers = require("flatbuffers.flexbuffers", "tflite")
    nodes = []
    for subgraph in model.subgraphs:
        for operator in subgraph.operators or []:
            builtin, custom = flatbuffer.operator_code(model, operator)
            if builtin != flatbuffer.CUSTOM:
                continue
            options = operator.customOptions
            numbered = flexbuffers.Loads(bytearray(options)) if options is not None and len(options) else {}
            if not isinstance(numbered, dict) or INSTANCE not in numbered:
                layers = ", ".join(f"`{name}`" for name in layers_of(custom)) or "the model"
                raise ValueError(
                    f"The TFLite converter cannot express {custom!r} of layer {layers} in builtin ops. Expected only "
                    "layers with a TFLite builtin, or ops of the registry"
                )
            instance = instances[int(numbered[INSTANCE])]
            nodes.append(Node(subgraph, operator, instance, _weights(model, subgraph, operator, instance)))
    return nodes


def _weights(model: Any, subgraph: Any, operator: Any, instance: Instance) -> list[Array]:
    arguments = instance.op.weights
    values = []
    for argument, index in zip(arguments, operator.inputs[-len(arguments) :] if arguments else [], strict=True):
        value = flatbuffer.constant(model, subgraph.tensors[index])
        if value is None:
            raise ValueError(
                f"Invalid weight `{argument.name}` of op `{instance.op.name}`. Expected a constant in the exported "
                "graph. Received a tensor that is computed from the input"
            )
        values.append(value)
    return values


def device_layout(argument: Argument, value: Array) -> Array:
    """A weight the way files hold it and kernels read it."""
    return value if argument.device_permutation is None else np.transpose(value, argument.device_permutation)


def encode_options(node: Node, extra: dict[str, Any] | None = None) -> bytes:
    """The flexbuffer map of version and attributes, with `extra` entries."""
    flexbuffers = require("flatbuffers.flexbuffers", "tflite")
    op = node.instance.op
    entries = {"version": op.version, **node.instance.attributes.encode(), **(extra or {})}
    return bytes(flexbuffers.Dumps(entries))


def to_custom(model: Any, nodes: Sequence[Node]) -> None:
    """Gives each op its encoded attributes and its weights in device layout, as inputs."""
    for node in nodes:
        op = node.instance.op
        weights = [
            flatbuffer.add_constant(model, node.subgraph, f"{op.name}.{argument.name}", device_layout(argument, value))
            for argument, value in zip(op.weights, node.weights, strict=True)
        ]
        node.operator.inputs = [*node.dynamic, *weights]
        node.operator.customOptions = np.frombuffer(encode_options(node), "uint8")


def to_composite(model: Any, nodes: Sequence[Node]) -> None:
    """Turns each op into a composite; its reference with the weights inside becomes a subgraph of the file."""
    if not nodes:
        return
    schema = flatbuffer.schema()
    decompositions = flatbuffer.parse(_convert_references(model, nodes))
    code = flatbuffer.opcode_index(model, flatbuffer.STABLEHLO_COMPOSITE)
    for number, node in enumerate(nodes):
        op = node.instance.op
        subgraph_index, weights = _append_decomposition(model, decompositions, number, node)
        options = schema.StableHLOCompositeOptionsT()
        options.name = op.name.encode()
        options.decompositionSubgraphIndex = subgraph_index
        options.compositeAttributes = np.frombuffer(encode_options(node, {"weights": weights}), "uint8")
        options.compositeAttributesFormat = schema.CustomOptionsFormat.FLEXBUFFERS
        options.version = op.version
        node.operator.inputs = node.dynamic
        node.operator.opcodeIndex = code
        node.operator.customOptions = None
        node.operator.builtinOptions2Type = schema.BuiltinOptions2.StableHLOCompositeOptions
        node.operator.builtinOptions2 = options
    if any(_is_of_bits(node.instance.op) for node in nodes):
        compaction.drop_names(model)


def _convert_references(model: Any, nodes: Sequence[Node]) -> bytes:
    """One file with a signature per op, in the order of `nodes`."""
    tf = require("tensorflow", "tflite")
    module = tf.Module()
    module.functions = [_reference_function(model, node) for node in nodes]
    signatures = {f"op_{number}": function.get_concrete_function() for number, function in enumerate(module.functions)}
    return convert(module, signatures)


def _reference_function(model: Any, node: Node) -> Any:
    """An op's reference: inputs are activations, gates and packed weights as stored; other weights are constants.

    Where an activation is a constant of the calling graph the reference knows its value.
    """
    tf = require("tensorflow", "tflite")
    op = node.instance.op
    specs, known = [], {}
    for argument, index in zip(op.arguments, node.dynamic, strict=False):
        tensor = node.subgraph.tensors[index]
        value = flatbuffer.constant(model, tensor)
        if value is not None:
            known[argument.name] = value
        sizes = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
        shape = [None if size < 0 else int(size) for size in sizes]
        specs.append(tf.TensorSpec(shape, argument.dtype, name=argument.name))
    constants = {}
    for argument, value in zip(op.weights, node.weights, strict=True):
        if argument.packed:
            specs.append(tf.TensorSpec(device_layout(argument, value).shape, argument.dtype, name=argument.name))
        else:
            constants[argument.name] = value

    def reference(*tensors: Any) -> dict[str, Any]:
        values = {name: tf.constant(value) for name, value in constants.items()}
        values.update(zip((spec.name for spec in specs), tensors, strict=True))
        values.update(known)
        for argument in op.weights:
            if argument.packed and argument.device_permutation is not None:  # as floats, or both ways stay in the file
                as_float = tf.cast(values[argument.name], "float32")
                values[argument.name] = tf.transpose(as_float, np.argsort(argument.device_permutation))
        with context.calling_ops_with(None):
            y = op.reference(
                *(values[argument.name] for argument in op.arguments), **dataclasses.asdict(node.instance.attributes)
            )
        return {"output": y}

    return tf.function(reference, input_signature=specs, autograph=False)


def _append_decomposition(model: Any, decompositions: Any, number: int, node: Node) -> tuple[int, list[int]]:
    """Appends the subgraph of one op; returns its index and the tensor indices of the weights in it."""
    op = node.instance.op
    entry = flatbuffer.signature(decompositions, f"op_{number}")
    source = decompositions.subgraphs[entry.subgraphIndex]
    index = flatbuffer.append_subgraph(model, decompositions, source, f"{op.name}.decomposition_{number}")
    subgraph = model.subgraphs[index]
    by_name = {flatbuffer.text(tensor.name): int(tensor.tensorIndex) for tensor in entry.inputs}
    dynamic = [by_name[argument.name] for argument in op.arguments if argument.kind != "weight"]
    subgraph.inputs = dynamic
    subgraph.outputs = [int(tensor.tensorIndex) for tensor in entry.outputs]
    weights = []
    for argument, value in zip(op.weights, node.weights, strict=True):
        stored = device_layout(argument, value)
        if argument.packed:
            tensor = subgraph.tensors[by_name[argument.name]]
            tensor.buffer = flatbuffer.add_buffer(model, np.ascontiguousarray(stored).tobytes())
            tensor.name = f"{op.name}.{argument.name}".encode()
            if argument.dtype == "int8":
                _cast_once(model, subgraph, by_name[argument.name])
            weights.append(by_name[argument.name])
        else:
            weights.append(flatbuffer.add_constant(model, subgraph, f"{op.name}.{argument.name}", stored))
    if _is_of_bits(op):
        weights = compaction.compact(model, subgraph, weights)
    return index, weights


def _is_of_bits(op: Op) -> bool:
    """Whether an op's weights are packed bits. Small files are what these are for."""
    return any(argument.packed and argument.dtype == "uint8" for argument in op.weights)


def _cast_once(model: Any, subgraph: Any, index: int) -> None:
    """Makes an int8 constant's CAST to float32 a DEQUANTIZE of scale 1, which runtimes do once and not in every run."""
    schema = flatbuffer.schema()
    quantization = schema.QuantizationParametersT()
    quantization.scale, quantization.zeroPoint = np.ones(1, "float32"), np.zeros(1, "int64")
    for operator in subgraph.operators:
        is_cast = flatbuffer.operator_code(model, operator)[0] == schema.BuiltinOperator.CAST
        if is_cast and int(operator.inputs[0]) == index:
            subgraph.tensors[index].quantization = quantization
            operator.opcodeIndex = flatbuffer.opcode_index(model, schema.BuiltinOperator.DEQUANTIZE, version=2)
            operator.builtinOptionsType, operator.builtinOptions = 0, None
