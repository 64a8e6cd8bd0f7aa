"""One signature of a file as a file of its own."""

from typing import Any

from keras_efficient.tflite_export import flatbuffer
from keras_efficient.tflite_export.prune import drop_unused

_REFERENCES = (
    "thenSubgraphIndex",
    "elseSubgraphIndex",
    "condSubgraphIndex",
    "bodySubgraphIndex",
    "initSubgraphIndex",
    "decompositionSubgraphIndex",
)


def only_signature(content: bytes, key: str) -> bytes:
    """The file with the signature `key` alone, its subgraph first, and whatever other subgraphs that one uses.

    Raises:
        ValueError: If the bytes are no file or it has no such signature.
    """
    model = flatbuffer.parse(content)
    entry = flatbuffer.signature(model, key)
    order = [int(entry.subgraphIndex)]
    for index in order:
        order += [used for used in _used(model.subgraphs[index]) if used not in order]
    places = {old: new for new, old in enumerate(order)}
    model.subgraphs = [model.subgraphs[index] for index in order]
    for subgraph in model.subgraphs:
        for options in _options(subgraph):
            for name in _REFERENCES:
                if hasattr(options, name):
                    setattr(options, name, places[int(getattr(options, name))])
    entry.subgraphIndex = 0
    model.signatureDefs = [entry]
    drop_unused(model)
    return flatbuffer.serialize(model)


def _options(subgraph: Any) -> list[Any]:
    found = [options for op in subgraph.operators or [] for options in (op.builtinOptions, op.builtinOptions2)]
    return [options for options in found if options is not None]


def _used(subgraph: Any) -> list[int]:
    """Indices of the subgraphs that ops of this one run, each once."""
    used = [int(getattr(o, name)) for o in _options(subgraph) for name in _REFERENCES if hasattr(o, name)]
    return list(dict.fromkeys(used))
