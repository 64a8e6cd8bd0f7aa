"""The plain network of one task out of a file that holds all tasks; see `task_file`."""

from typing import Any

import numpy as np

from keras_efficient.tflite_export import flatbuffer, metadata, prune


def one_task(content: bytes, task: str | None) -> bytes:
    """The plain network of one task out of a file of all tasks, its kernels folded to constants.

    Raises:
        ValueError: If the file holds no such task, or a task is named for a file without tasks or none for one with.
    """
    parsed = flatbuffer.parse(content)
    entries = metadata.read(parsed)
    known = list(entries.get("tasks", {}))
    if task not in known:
        raise ValueError(
            f"Invalid value for argument `task`. Expected {f'one of {known}' if known else 'None for this file'}. "
            f"Received: {task!r}"
        )
    signature = flatbuffer.signature(parsed, task)
    subgraph = parsed.subgraphs[int(signature.subgraphIndex)]
    _fold(parsed, subgraph)
    signature.subgraphIndex = 0
    parsed.subgraphs, parsed.signatureDefs = [subgraph], [signature]
    prune.drop_unused(parsed)
    entries = {**entries, "macs": entries["tasks"][task], "task": task}
    del entries["tasks"], entries["pool_bytes"]
    flatbuffer.set_metadata(parsed, metadata.NAME, metadata.encode(entries))
    prune.drop_unused(parsed)
    return flatbuffer.serialize(parsed)


def _fold(parsed: Any, graph: Any) -> None:
    """Computes the kernels of a task: every GATHER and MUL whose inputs are constants becomes one."""
    names = flatbuffer.builtin_names()
    kept = []
    for operator in graph.operators:
        kind = names[flatbuffer.operator_code(parsed, operator)[0]]
        found = [flatbuffer.constant(parsed, graph.tensors[int(i)]) for i in operator.inputs if int(i) >= 0]
        values = [value for value in found if value is not None]
        if kind not in ("GATHER", "MUL") or len(values) < len(found):
            kept.append(operator)
            continue
        result = values[0][values[1]] if kind == "GATHER" else values[0] * values[1]
        tensor = graph.tensors[int(operator.outputs[0])]
        tensor.buffer = flatbuffer.add_buffer(parsed, np.ascontiguousarray(result).tobytes())
    graph.operators = kept
