"""Branches of an int8 file hand integers on, not floats that both sides convert.

The converter makes int8 of what goes into an IF, but has a branch end in DEQUANTIZE and the IF be followed by QUANTIZE.
Where both branches end in the integers that are wanted behind, these come out instead.
"""

from typing import Any

from keras_efficient.tflite_export import flatbuffer
from keras_efficient.tflite_export.int8_ops import quantization


def integers_out_of_branches(model: Any) -> None:
    """Rewrites the outputs of every IF where that changes no number."""
    owners = [
        branch for subgraph in model.subgraphs for op in _conditionals(model, subgraph) for branch in _branches(op)
    ]
    for subgraph in model.subgraphs:
        for operator in _conditionals(model, subgraph):
            branches = [model.subgraphs[index] for index in _branches(operator)]
            if all(owners.count(index) == 1 for index in _branches(operator)):
                for position in range(len(operator.outputs)):
                    _hand_integers_on(model, subgraph, operator, branches, position)


def _conditionals(model: Any, subgraph: Any) -> list[Any]:
    return [op for op in subgraph.operators or [] if flatbuffer.is_builtin(model, op, "IF")]


def _branches(operator: Any) -> tuple[int, int]:
    options = operator.builtinOptions
    return int(options.thenSubgraphIndex), int(options.elseSubgraphIndex)


def _hand_integers_on(model: Any, subgraph: Any, operator: Any, branches: list[Any], position: int) -> None:
    real = int(operator.outputs[position])
    readers = [op for op in subgraph.operators if real in op.inputs]
    if (
        not readers
        or real in subgraph.outputs
        or not all(flatbuffer.is_builtin(model, op, "QUANTIZE") for op in readers)
    ):
        return
    targets = [int(op.outputs[0]) for op in readers]
    wanted = quantization(subgraph.tensors[targets[0]])
    ends = [flatbuffer.producer(branch, int(branch.outputs[position])) for branch in branches]
    if wanted is None or any(end is None or not flatbuffer.is_builtin(model, end, "DEQUANTIZE") for end in ends):
        return
    sources = [int(end.inputs[0]) for end in ends]
    given = [quantization(branch.tensors[source]) for branch, source in zip(branches, sources, strict=True)]
    if any(found != wanted for found in given + [quantization(subgraph.tensors[target]) for target in targets]):
        return
    for branch, source in zip(branches, sources, strict=True):
        branch.outputs = [source if k == position else int(index) for k, index in enumerate(branch.outputs)]
    operator.outputs = [targets[0] if k == position else int(index) for k, index in enumerate(operator.outputs)]
    subgraph.operators = [op for op in subgraph.operators if not any(op is reader for reader in readers)]
    flatbuffer.replace(subgraph, targets[1:], targets[0])
