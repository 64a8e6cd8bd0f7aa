"""Dropping what rewriting left behind: tensors that no op reads or writes, and buffers that no tensor holds."""

from collections.abc import Iterable
from typing import Any

from keras_efficient.tflite_export import flatbuffer


def drop_unused(model: Any) -> None:
    """Removes unused buffers, and unused tensors except in decompositions, whose weights are named by index."""
    decompositions = decomposition_indices(model)
    for index, subgraph in enumerate(model.subgraphs):
        if index not in decompositions:
            entries = [s for s in model.signatureDefs or [] if int(s.subgraphIndex) == index]
            _drop_tensors(subgraph, entries)
    _drop_buffers(model)


def decomposition_indices(model: Any) -> set[int]:
    """Indices of the subgraphs that are decompositions of composites."""
    return {
        int(operator.builtinOptions2.decompositionSubgraphIndex)
        for subgraph in model.subgraphs
        for operator in subgraph.operators or []
        if flatbuffer.operator_code(model, operator)[0] == flatbuffer.STABLEHLO_COMPOSITE
    }


def _drop_tensors(subgraph: Any, signatures: list[Any]) -> None:
    lists = [(holder, name) for holder in [subgraph] for name in ("inputs", "outputs")]
    lists += [(op, name) for op in subgraph.operators or [] for name in ("inputs", "outputs", "intermediates")]
    used = {int(i) for holder, name in lists for i in _indices(getattr(holder, name)) if i >= 0}
    places = {old: new for new, old in enumerate(sorted(used))}
    subgraph.tensors = [subgraph.tensors[old] for old in sorted(used)]
    for holder, name in lists:
        if getattr(holder, name) is not None:
            setattr(holder, name, [places[int(i)] if i >= 0 else -1 for i in getattr(holder, name)])
    for entry in signatures:
        for tensor in [*entry.inputs, *entry.outputs]:
            tensor.tensorIndex = places[int(tensor.tensorIndex)]


def _indices(values: Iterable[int] | None) -> Iterable[int]:
    return values if values is not None else ()


def _drop_buffers(model: Any) -> None:
    """Keeps buffer 0 (empty by convention) and those of tensors and metadata."""
    holders = [tensor for subgraph in model.subgraphs for tensor in subgraph.tensors] + list(model.metadata or [])
    used = sorted({0, *(int(holder.buffer) for holder in holders)})
    places = {old: new for new, old in enumerate(used)}
    model.buffers = [model.buffers[old] for old in used]
    for holder in holders:
        holder.buffer = places[int(holder.buffer)]
    if model.metadataBuffer is not None:
        model.metadataBuffer = None
