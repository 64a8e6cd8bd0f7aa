"""Decompositions in few bytes: what matters where they stand beside packed weights of a few kilobytes.

Names and the shapes of what is computed go (runtimes infer shapes), and so do operators that the converter leaves and
no runtime needs. Tensors are numbered in the order of their use, so that decompositions of the same kind consist of
equal operators, which a file holds once (`sharing`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_efficient.tflite_export import flatbuffer

LARGE = 2**16  # elements


def compact(model: Any, subgraph: Any, kept: Sequence[int]) -> list[int]:
    """Rewrites a decomposition in place; what it computes stays the same.

    Returns:
        The tensors `kept` under their new numbers.
    """
    graph = _Graph(model, subgraph, kept)
    graph.leave_first_dimensions_open()
    graph.merge_constants()
    for operator in list(subgraph.operators):
        for rewrite in (_exclusive_sum, _plain_index, _whole_input):
            rewrite(graph, operator)
        graph.drop_unread()
    return graph.strip_and_number()


def drop_names(model: Any) -> None:
    """Drops the names of all tensors that no signature lists."""
    listed = {
        (int(entry.subgraphIndex), int(tensor.tensorIndex))
        for entry in model.signatureDefs or []
        for tensor in [*entry.inputs, *entry.outputs]
    }
    for number, subgraph in enumerate(model.subgraphs):
        for index, tensor in enumerate(subgraph.tensors):
            if (number, index) not in listed:
                tensor.name = None


class _Graph:
    """A subgraph with what is asked of it again and again."""

    def __init__(self, model: Any, subgraph: Any, kept: Sequence[int]) -> None:
        self.model, self.subgraph = model, subgraph
        self.kept = [int(index) for index in kept]
        names = flatbuffer.builtin_names()
        self._kind: Callable[[Any], str] = lambda operator: names[flatbuffer.operator_code(model, operator)[0]]

    def is_a(self, operator: Any, *kinds: str) -> bool:
        """Whether an operator (or None) is of one of the kinds."""
        return operator is not None and self._kind(operator) in kinds

    def writer(self, index: int) -> Any:
        """The operator that computes a tensor; None for inputs and constants."""
        return flatbuffer.producer(self.subgraph, index)

    def readers(self, index: int) -> list[Any]:
        """The operators that take a tensor."""
        return [op for op in self.subgraph.operators if index in [int(i) for i in op.inputs]]

    def value(self, index: int) -> Any:
        """The value of a constant; None for other tensors."""
        return flatbuffer.constant(self.model, self.subgraph.tensors[index])

    def replace(self, old: int, new: int) -> None:
        """Makes everybody take tensor `new` who took `old`."""
        flatbuffer.replace(self.subgraph, [old], new)

    def leave_first_dimensions_open(self) -> None:
        """Lets a RESHAPE find its first dimension itself: more of them then share their constant."""
        for operator in self.subgraph.operators:
            shape = self.value(int(operator.inputs[1])) if self.is_a(operator, "RESHAPE") else None
            if shape is not None and shape.size and (shape > 0).all():
                open_shape = np.array([-1, *shape[1:]], "int32")
                constant = flatbuffer.add_constant(self.model, self.subgraph, "", open_shape)
                operator.inputs = [int(operator.inputs[0]), constant]

    def merge_constants(self) -> None:
        """Leaves one tensor for every constant. One that is kept and that nobody takes yet may become a column."""
        first: dict[Any, int] = {}
        for index in [*self.kept, *range(len(self.subgraph.tensors))]:
            tensor = self.subgraph.tensors[index]
            if self.value(index) is None or tensor.quantization is not None:
                continue
            shape = [int(size) for size in tensor.shape]
            column = (tensor.buffer, tensor.type, shape[0]) if len(shape) == 2 and shape[1] == 1 else None
            same = first.setdefault((tensor.buffer, tensor.type, tuple(shape)), index)
            if column in first and first[column] in self.kept and not self.readers(first[column]):
                same = first.pop(column)
                self.subgraph.tensors[same].shape = shape
            if index in self.kept and len(shape) == 1:
                first[(tensor.buffer, tensor.type, shape[0])] = index
            if same != index and index not in self.kept:
                self.replace(index, same)

    def drop_unread(self) -> None:
        """Drops operators whose results nobody takes."""
        while True:
            read = {int(i) for op in self.subgraph.operators for i in op.inputs} | set(map(int, self.subgraph.outputs))
            left = [op for op in self.subgraph.operators if any(int(i) in read for i in op.outputs)]
            if len(left) == len(self.subgraph.operators):
                return
            self.subgraph.operators = left

    def is_natural(self, index: int) -> bool:
        """Whether no element of a tensor can be negative, as far as can be seen without trying."""
        value, writer = self.value(index), self.writer(index)
        if value is not None:
            return bool((value >= 0).all())
        if self.is_a(writer, "FULLY_CONNECTED"):
            options = flatbuffer.schema().ActivationFunctionType
            return writer.builtinOptions.fusedActivationFunction in (options.RELU, options.RELU6)
        if self.is_a(writer, "ADD", "MUL", "MINIMUM"):
            return all(self.is_natural(int(i)) for i in writer.inputs)
        return self.is_a(writer, "CAST", "CUMSUM", "RESHAPE") and self.is_natural(int(writer.inputs[0]))

    def strip_and_number(self) -> list[int]:
        """Drops tensors that nobody takes, and shapes and tables that nobody needs."""
        graph = self.subgraph
        special = [op for op in graph.operators if self._is_special(op)]
        last = {int(i) for op in special for i in op.outputs}
        usual = [int(i) for op in graph.operators if op not in special for i in [*op.inputs, *op.outputs]]
        order = [*map(int, graph.inputs), *self.kept, *(i for i in usual if i not in last)]
        order += [int(i) for op in special for i in [*op.inputs, *op.outputs]]
        number = {old: new for new, old in enumerate(dict.fromkeys(index for index in order if index >= 0))}
        keeps_shape = {*map(int, graph.inputs), *map(int, graph.outputs), *self._large_factors()}
        for index in number:
            tensor = graph.tensors[index]
            if index not in keeps_shape and self.value(index) is None:
                tensor.shape, tensor.shapeSignature = None, None
            tensor.hasRank = tensor.shape is not None and len(tensor.shape) == 0  # others tell by their shape
        graph.tensors = [graph.tensors[old] for old in number]
        graph.inputs = [number[int(i)] for i in graph.inputs]
        graph.outputs = [number[int(i)] for i in graph.outputs]
        for operator in graph.operators:
            operator.inputs = [number[int(i)] if i >= 0 else -1 for i in operator.inputs]
            operator.outputs = [number[int(i)] for i in operator.outputs]
            options = operator.builtinOptions
            has_shape = self.is_a(operator, "RESHAPE") and len(operator.inputs) == 2  # its second input
            if options is not None and (has_shape or vars(options) == vars(type(options)())):
                operator.builtinOptionsType, operator.builtinOptions = 0, None
        graph.name = None
        return [number[index] for index in self.kept]

    def _large_factors(self) -> set[int]:
        """What large BATCH_MATMULs take: XNNPACK leaves those of unknown shape to kernels that are ten times slower."""
        products = [op for op in self.subgraph.operators if self.is_a(op, "BATCH_MATMUL")]
        large = [op for op in products if np.prod(self.subgraph.tensors[int(op.inputs[1])].shape) >= LARGE]
        return {int(index) for op in large for index in op.inputs}

    def _is_special(self, operator: Any) -> bool:
        """Whether it is what some decompositions have and others of the same kind have not; its tensors come last."""
        if self.is_a(operator, "RESHAPE"):
            return any(self.is_a(reader, "STRIDED_SLICE") for reader in self.readers(int(operator.outputs[0])))
        return self.is_a(operator, "STRIDED_SLICE", "TRANSPOSE")


def _exclusive_sum(graph: _Graph, operator: Any) -> None:
    """`cumsum(x) - x` is the exclusive sum."""
    if not graph.is_a(operator, "SUB") or operator.builtinOptions.fusedActivationFunction:
        return
    sums, x = (int(i) for i in operator.inputs)
    writer = graph.writer(sums)
    if not graph.is_a(writer, "CUMSUM") or int(writer.inputs[0]) != x or len(graph.readers(sums)) > 1:
        return
    options = writer.builtinOptions
    if not (options.exclusive or options.reverse):
        options.exclusive = True
        graph.replace(int(operator.outputs[0]), sums)


def _plain_index(graph: _Graph, operator: Any) -> None:
    """`where(i < 0, i + size, i)`, which Keras gathers with, is `i` where `i` is never negative."""
    if not graph.is_a(operator, "SELECT", "SELECT_V2"):
        return
    condition, _, index = (int(i) for i in operator.inputs)
    less = graph.writer(condition)
    if not graph.is_a(less, "LESS") or int(less.inputs[0]) != index:
        return
    bound = graph.value(int(less.inputs[1]))
    if bound is not None and (bound <= 0).all() and graph.is_natural(index):
        graph.replace(int(operator.outputs[0]), index)


def _whole_input(graph: _Graph, operator: Any) -> None:
    """A FULLY_CONNECTED takes its inputs in any shape: a RESHAPE before it does nothing."""
    if not graph.is_a(operator, "FULLY_CONNECTED") or operator.builtinOptions.keepNumDims:
        return
    reshape = graph.writer(int(operator.inputs[0]))
    if graph.is_a(reshape, "RESHAPE"):
        operator.inputs = [int(reshape.inputs[0]), *map(int, operator.inputs[1:])]
