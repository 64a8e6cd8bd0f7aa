"""Writes small `.tflite` files with one op of ours, from the schema alone; numpy says what they should give."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import flatbuffers.flexbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

FLOAT32, INT32, UINT8, BOOL = (
    schema.TensorType.FLOAT32,
    schema.TensorType.INT32,
    schema.TensorType.UINT8,
    schema.TensorType.BOOL,
)


@dataclasses.dataclass
class Graph:
    """One subgraph under construction; tensors and operators refer to the model that holds it."""

    model: Model
    subgraph: Any

    def tensor(self, name: str, shape: tuple[int, ...], type_: int = FLOAT32, value: np.ndarray | None = None) -> int:
        """Adds a tensor, a constant when there is a value; returns its index."""
        tensor = schema.TensorT()
        tensor.name = name
        tensor.shape = list(shape)
        tensor.type = type_
        tensor.buffer = 0 if value is None else self.model.buffer(value.tobytes())
        if value is None and shape and shape[0] == 1:
            tensor.shapeSignature = [-1, *shape[1:]]
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1

    def operator(
        self,
        code: int,
        inputs: list[int],
        outputs: list[int],
        options_type: int = 0,
        options: Any = None,
        custom_code: str | None = None,
    ) -> Any:
        """Appends an operator and returns it."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self.model.operator_code(code, custom_code)
        operator.inputs, operator.outputs = inputs, outputs
        operator.builtinOptionsType, operator.builtinOptions = options_type, options
        self.subgraph.operators.append(operator)
        return operator


class Model:
    """A model under construction."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.description = "test"
        self.model.operatorCodes, self.model.subgraphs = [], []
        self.model.buffers = [schema.BufferT()]

    def buffer(self, data: bytes) -> int:
        """Adds a buffer."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(data, np.uint8)
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def operator_code(self, code: int, custom_code: str | None = None) -> int:
        """The index of an operator code, added when it is new."""
        name = None if custom_code is None else custom_code.encode()
        for index, existing in enumerate(self.model.operatorCodes):
            if existing.builtinCode == code and existing.customCode == name:
                return index
        operator_code = schema.OperatorCodeT()
        operator_code.builtinCode = code
        operator_code.deprecatedBuiltinCode = min(code, 127)
        operator_code.customCode = name
        operator_code.version = 1
        self.model.operatorCodes.append(operator_code)
        return len(self.model.operatorCodes) - 1

    def graph(self, name: str) -> Graph:
        """Adds a subgraph."""
        subgraph = schema.SubGraphT()
        subgraph.name = name
        subgraph.tensors, subgraph.operators, subgraph.inputs, subgraph.outputs = [], [], [], []
        self.model.subgraphs.append(subgraph)
        return Graph(self, subgraph)

    def write(self) -> bytes:
        """The file."""
        return bytes(flatbuffer_utils.convert_object_to_bytearray(self.model))


@dataclasses.dataclass
class OpCase:
    """One op with its weights: enough to write it in either form."""

    name: str
    input_shapes: dict[str, tuple[int, ...]]
    output_shape: tuple[int, ...]
    weights: dict[str, np.ndarray]
    attributes: dict[str, int]
    tolerance: ClassVar[float] = 1e-4

    def input_type(self, name: str) -> int:
        """The element type of an input."""
        return int(INT32 if name == "max_bits" else FLOAT32)

    def decompose(self, graph: Graph, inputs: list[int], output: int) -> None:
        """The same with builtin operators."""
        raise NotImplementedError

    def expected(self, *inputs: np.ndarray) -> np.ndarray:
        """What it gives."""
        raise NotImplementedError

    def macs(self, *inputs: np.ndarray) -> int:
        """What the kernel counts."""
        raise NotImplementedError


def _weight_type(array: np.ndarray) -> int:
    return int(UINT8) if array.dtype == np.uint8 else int(FLOAT32)


def add_op(
    model: Model, graph: Graph, case: OpCase, inputs: list[int], output: int, form: str, **overrides: Any
) -> Any:
    """Appends the op to `graph` in the form "custom" or "composite"; `overrides` replace attributes."""
    attributes: dict[str, Any] = {"version": 1, **case.attributes}
    if form == "custom":
        weights = [graph.tensor(n, w.shape, _weight_type(w), w) for n, w in case.weights.items()]
        custom = schema.BuiltinOperator.CUSTOM
        operator = graph.operator(custom, [*inputs, *weights], [output], custom_code=case.name)
        operator.customOptions = np.frombuffer(flatbuffers.flexbuffers.Dumps({**attributes, **overrides}), np.uint8)
        return operator
    decomposition = model.graph(f"decomposition_{len(model.model.subgraphs)}")
    index = len(model.model.subgraphs) - 1
    inner = [decomposition.tensor(n, s, case.input_type(n)) for n, s in case.input_shapes.items()]
    inner_output = decomposition.tensor("y", case.output_shape)
    weights = [decomposition.tensor(n, w.shape, _weight_type(w), w) for n, w in case.weights.items()]
    case.decompose(decomposition, inner, inner_output)
    decomposition.subgraph.inputs, decomposition.subgraph.outputs = inner, [inner_output]
    operator = graph.operator(schema.BuiltinOperator.STABLEHLO_COMPOSITE, inputs, [output])
    options = schema.StableHLOCompositeOptionsT()
    options.name = case.name.encode()
    options.decompositionSubgraphIndex = index
    attributes = {**attributes, "weights": weights, **overrides}
    options.compositeAttributes = np.frombuffer(flatbuffers.flexbuffers.Dumps(attributes), np.uint8)
    operator.builtinOptions2Type = schema.BuiltinOptions2.StableHLOCompositeOptions
    operator.builtinOptions2 = options
    return operator


def single_op_model(case: OpCase, form: str, **overrides: Any) -> bytes:
    """A file whose only operator is the op."""
    model = Model()
    main = model.graph("main")
    inputs = [main.tensor(n, s, case.input_type(n)) for n, s in case.input_shapes.items()]
    output = main.tensor("output", case.output_shape)
    main.subgraph.inputs, main.subgraph.outputs = inputs, [output]
    add_op(model, main, case, inputs, output, form, **overrides)
    return model.write()


def branch_model(case: OpCase, form: str) -> bytes:
    """`condition ? op(inputs) : op(op's first input doubled, ...)`: the op inside both branches of an IF."""
    model = Model()
    main = model.graph("main")
    condition = main.tensor("condition", (), BOOL)
    inputs = [main.tensor(n, s, case.input_type(n)) for n, s in case.input_shapes.items()]
    output = main.tensor("output", case.output_shape)
    main.subgraph.inputs, main.subgraph.outputs = [condition, *inputs], [output]
    options = schema.IfOptionsT()
    options.thenSubgraphIndex, options.elseSubgraphIndex = 1, 2
    main.operator(schema.BuiltinOperator.IF, [condition, *inputs], [output], schema.BuiltinOptions.IfOptions, options)
    branches = [model.graph("then"), model.graph("else")]
    for graph, factor in zip(branches, (None, 2.0), strict=True):
        arguments = [graph.tensor(n, s, case.input_type(n)) for n, s in case.input_shapes.items()]
        result = graph.tensor("y", case.output_shape)
        graph.subgraph.inputs, graph.subgraph.outputs = list(arguments), [result]
        if factor is not None:
            two = graph.tensor("two", (), FLOAT32, np.array(factor, np.float32))
            doubled = graph.tensor("doubled", next(iter(case.input_shapes.values())))
            multiply(graph, arguments[0], two, doubled)
            arguments[0] = doubled
        add_op(model, graph, case, arguments, result, form)
    return model.write()


def multiply(graph: Graph, a: int, b: int, output: int) -> None:
    """output = a * b."""
    graph.operator(schema.BuiltinOperator.MUL, [a, b], [output], schema.BuiltinOptions.MulOptions, schema.MulOptionsT())


def _activate(y: np.ndarray, activation: int) -> np.ndarray:
    return (y, np.maximum(y, 0), np.clip(y, 0, 6))[activation]


class GatedConv2D(OpCase):
    """A small gated convolution, stride 1."""

    def __init__(self, size: int = 5, channels: int = 6, outputs: int = 19, kernel: int = 3, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        super().__init__(
            name="ke.gated_conv_2d",
            input_shapes={"x": (1, size, size, channels), "g_in": (1, channels), "g_out": (1, outputs)},
            output_shape=(1, size, size, outputs),
            weights={
                "kernel": rng.normal(size=(outputs, kernel, kernel, channels)).astype(np.float32),
                "bias": rng.normal(size=outputs).astype(np.float32),
            },
            attributes={"stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1, "padding": 1, "activation": 1},
        )

    def example(self, rng: np.random.Generator, batch: int = 1) -> list[np.ndarray]:
        """Random inputs with half of the gates shut."""
        shapes = [(batch, *shape[1:]) for shape in self.input_shapes.values()]
        x, g_in, g_out = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
        return [x, g_in * (rng.random(g_in.shape) < 0.5), g_out * (rng.random(g_out.shape) < 0.5)]

    def expected(self, *inputs: np.ndarray) -> np.ndarray:
        x, g_in, g_out = (value.astype(np.float64) for value in inputs)
        kernel, bias = (value.astype(np.float64) for value in self.weights.values())
        pad = kernel.shape[1] // 2
        x = np.pad(x * (g_in != 0)[:, None, None, :], ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[1:3], axis=(1, 2))
        y = np.einsum("bhwcij,oijc->bhwo", windows, kernel) + bias
        return _activate(y, self.attributes["activation"]) * g_out[:, None, None, :]

    def macs(self, *inputs: np.ndarray) -> int:
        x, g_in, g_out = inputs
        kernel = self.weights["kernel"].shape
        per_pair = x.shape[1] * x.shape[2] * kernel[1] * kernel[2]
        return int(per_pair * ((g_in != 0).sum(-1) * (g_out != 0).sum(-1)).sum())

    def decompose(self, graph: Graph, inputs: list[int], output: int) -> None:
        x, g_in, g_out = inputs
        kernel = next(i for i, t in enumerate(graph.subgraph.tensors) if t.name == "kernel")
        channels, outputs = self.input_shapes["g_in"][1], self.input_shapes["g_out"][1]
        zero = graph.tensor("zero", (), FLOAT32, np.array(0, np.float32))
        is_open = graph.tensor("open", (1, channels), BOOL)
        not_equal = schema.BuiltinOptions.NotEqualOptions
        graph.operator(schema.BuiltinOperator.NOT_EQUAL, [g_in, zero], [is_open], not_equal, schema.NotEqualOptionsT())
        mask = graph.tensor("mask", (1, channels))
        graph.operator(schema.BuiltinOperator.CAST, [is_open], [mask])

        def per_pixel(vector: int, size: int) -> int:
            shape = graph.tensor(f"shape_{size}", (4,), INT32, np.array([-1, 1, 1, size], np.int32))
            reshaped = graph.tensor(f"reshaped_{size}", (1, 1, 1, size))
            graph.operator(schema.BuiltinOperator.RESHAPE, [vector, shape], [reshaped])
            return reshaped

        masked = graph.tensor("masked", self.input_shapes["x"])
        multiply(graph, x, per_pixel(mask, channels), masked)
        convolved = graph.tensor("convolved", self.output_shape)
        options = schema.Conv2DOptionsT()
        options.padding = schema.Padding.SAME
        options.strideH = options.strideW = options.dilationHFactor = options.dilationWFactor = 1
        options.fusedActivationFunction = schema.ActivationFunctionType.RELU
        conv_options = schema.BuiltinOptions.Conv2DOptions
        graph.operator(schema.BuiltinOperator.CONV_2D, [masked, kernel, kernel + 1], [convolved], conv_options, options)
        multiply(graph, convolved, per_pixel(g_out, outputs), output)


class MultiBitDense(OpCase):
    """A small multi-bit dense layer with up to two bases and a last group that is partly unused."""

    tolerance = 0.3

    def __init__(
        self, inputs: int = 52, outputs: int = 37, group_size: int = 24, bases: int = 2, seed: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        groups = -(-inputs // group_size)
        widths = rng.integers(0, bases + 1, (outputs, groups))
        self.signs = rng.choice([-1, 1], (outputs, groups, bases, group_size))
        self.scales = rng.normal(size=(outputs, groups, bases)).astype(np.float32)
        live = np.arange(bases) < widths[..., None]
        self.scales[~live] = 0
        width_bits = widths[..., None] >> np.arange(bases.bit_length()) & 1
        super().__init__(
            name="ke.multi_bit_dense",
            input_shapes={"x": (1, inputs), "max_bits": (1,)},
            output_shape=(1, outputs),
            weights={
                "widths": np.packbits(width_bits.astype(bool).ravel(), bitorder="little"),
                "bits": np.packbits(self.signs[live].ravel() < 0, bitorder="little"),
                "scales": self.scales[live],
                "levels": np.zeros(1, np.float32),
                "bias": rng.normal(size=outputs).astype(np.float32),
            },
            attributes={
                "version": 2,
                "group_size": group_size,
                "bases": bases,
                "activation_bits": 0,
                "activation": 0,
            },
        )

    def example(self, rng: np.random.Generator, batch: int = 1) -> list[np.ndarray]:
        """A random input, and all bases."""
        x = rng.normal(size=(batch, self.input_shapes["x"][1])).astype(np.float32)
        return [x, np.full(batch, 8, np.int32)]

    def matrix(self) -> np.ndarray:
        """The weights as floats, [inputs, outputs]."""
        grouped = (self.signs * self.scales.astype(np.float64)[..., None]).sum(2)
        return np.asarray(grouped.reshape(len(grouped), -1)[:, : self.input_shapes["x"][1]].T)

    def expected(self, *inputs: np.ndarray) -> np.ndarray:
        y = inputs[0].astype(np.float64) @ self.matrix() + self.weights["bias"]
        return _activate(y, self.attributes["activation"])

    def macs(self, *inputs: np.ndarray) -> int:
        return inputs[0].size * len(self.weights["bias"])

    def decompose(self, graph: Graph, inputs: list[int], output: int) -> None:
        bias = next(i for i, t in enumerate(graph.subgraph.tensors) if t.name == "bias")
        matrix = np.ascontiguousarray(self.matrix().T, np.float32)
        weights = graph.tensor("matrix", matrix.shape, FLOAT32, matrix)
        kind = schema.BuiltinOptions.FullyConnectedOptions
        options = schema.FullyConnectedOptionsT()
        graph.operator(schema.BuiltinOperator.FULLY_CONNECTED, [inputs[0], weights, bias], [output], kind, options)
