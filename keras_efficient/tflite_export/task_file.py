"""All tasks of a `MultiTask` network in one file: a signature per task, every filter that tasks share stored once.

The kernel of each layer is taken from a pool of stored filters, by an index and a scale per task:

    W_t = scale_t * GATHER(pool, index_t)                      pool [stored filters, ...], index_t [slots]

The scale is what the converter folded into a kernel from the task's batch normalisation. Any runtime computes this, but
XNNPACK leaves convolutions whose kernel is no constant to slower ones; so `load` folds the kernels of the task it is
asked for (`one_task`) before the interpreter sees them, and what runs is the plain network of that task.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_efficient.layers.filter_sharing import FilterSharing
from keras_efficient.models.multi_task import MultiTask
from keras_efficient.tflite_export import flatbuffer, metadata, prune, runtime, verify
from keras_efficient.tflite_export.precision import in_float32
from keras_efficient.tflite_export.report import ExportReport
from keras_efficient.tflite_export.runner import Runner
from keras_efficient.tflite_export.session import Session
from keras_efficient.tflite_export.signatures import InputSpec, Signature, call_model
from keras_efficient.tflite_export.task_folding import one_task
from keras_efficient.tflite_export.trace import reference_function, trace

Array = NDArray[Any]
POOL = "filter_pool"
SAME = 1e-5  # of the largest weight: how far a kernel may be from a scaled pool


def has_tasks(model: Any) -> bool:
    """Whether the model is a network of several tasks."""
    return isinstance(model, MultiTask)


def plain_network(model: Any, task: str) -> keras.Model:
    """One task of a `MultiTask` network as a plain model.

    Raises:
        ValueError: If the model has no such task.
    """
    if not has_tasks(model):
        raise ValueError(
            f"Invalid value for argument `task`. Expected None for a model without tasks, {model.name!r}. "
            f"Received: {task!r}"
        )
    plain: keras.Model = model.export(task=task)
    return plain


def check_whole(quantize: str | None, ops: str | None) -> None:
    """Raises a `ValueError` of one sentence unless all tasks can be written into one file this way."""
    if quantize is not None:
        raise ValueError(
            "Invalid value for argument `quantize`. Expected None for a file of all tasks, whose shared filters have "
            f"other ranges in each; export one `task` at a time. Received: {quantize!r}"
        )
    if ops not in (None, "builtin"):
        raise ValueError(
            "Invalid value for argument `ops`. Expected None or 'builtin' for a file of all tasks, which consists of "
            f"builtin ones. Received: {ops!r}"
        )


def export_tasks(
    model: MultiTask, file: pathlib.Path, specs: Sequence[InputSpec], inputs: dict[str, Array], more: dict[str, Any]
) -> ExportReport:
    """Writes all tasks into one file and verifies each against Keras.

    Args:
        model: The network, on the TensorFlow backend.
        file: Where to.
        specs: Its inputs with the batch size in front.
        inputs: What to verify on.
        more: Further metadata.
    """
    model = in_float32(model)
    networks = _Networks([model.export(task=task) for task in model.tasks])
    signatures = [
        Signature(task, tuple(specs), lambda *tensors, plain=plain: call_model(plain, specs, tensors))
        for task, plain in zip(model.tasks, networks.networks, strict=True)
    ]
    traced = trace(networks, signatures, whole_ops=False)
    parsed = flatbuffer.parse(traced.content)
    pooled, left = _pool_filters(parsed, model)
    prune.drop_unused(parsed)
    macs = {task: metadata.macs_entry(traced.parts[task].dense_macs) for task in model.tasks}
    entries = {"form": "builtin", "ops": {}, "branches": False, "tasks": macs, "pool_bytes": pooled, **more}
    flatbuffer.set_metadata(parsed, metadata.NAME, metadata.encode(entries))
    content = flatbuffer.serialize(parsed)
    notes = [
        f"{pooled:,} bytes are filters, each stored once; {len(content) - pooled:,} are the container: graphs, heads, "
        "and per task biases, indices and scales."
    ]
    notes += [f"Layer `{name}` is stored per task: its kernel was not found in the converted file." for name in left]
    parity: dict[str, float] = {}
    try:
        found = runtime.find_runtime()
    except ImportError as error:
        notes.append(f"Not verified: {error}")
    else:
        for signature in signatures:
            reference = reference_function(signature)
            folded = Runner(Session(one_task(content, signature.key), found, None, 1))
            differences = verify.compare(reference, folded, inputs).differences
            parity[signature.key] = float(np.max(list(differences.values())))
    flatbuffer.write_whole(file, content)
    return ExportReport(
        path=str(file),
        ops="builtin",
        written={},
        bytes=len(content),
        parity=parity,
        verified_inputs=len(next(iter(inputs.values()))) if parity else 0,
        exit_mismatches=0,
        dense_macs=sum(traced.dense_macs) / len(model.tasks),
        notes=tuple(notes),
    )


class _Networks(keras.Model):
    """The plain networks of all tasks, in one object to trace."""

    def __init__(self, networks: Sequence[keras.Model]) -> None:
        super().__init__()
        self.networks = list(networks)
        self.built = True


def _pool_filters(parsed: Any, model: MultiTask) -> tuple[int, list[str]]:
    """Replaces kernels by what a pool gives; bytes of the pools, and names of the layers left as they were."""
    pooled, left = 0, []
    graphs = [parsed.subgraphs[int(flatbuffer.signature(parsed, task).subgraphIndex)] for task in model.tasks]
    for layer in model.sharing_layers:
        kernels = layer.get_sources()[0]
        sources = layer.sources()
        stored = layer.stored_filters()
        pool = np.ascontiguousarray([np.moveaxis(kernels[source], -1, 0)[slot] for source, slot in stored], "float32")
        places = {filter_: place for place, filter_ in enumerate(stored)}
        indices = [
            np.asarray([places[int(source), slot] for slot, source in enumerate(row)], "int32") for row in sources
        ]
        found = [_find(parsed, graph, pool[index]) for graph, index in zip(graphs, indices, strict=True)]
        if None in found:
            left.append(layer.name)
            continue
        pooled += pool.nbytes
        for graph, index, match in zip(graphs, indices, found, strict=True):
            while match is not None:  # again where the backbone calls the layer again
                _take_from_pool(parsed, graph, *match, pool, index, layer)
                match = _find(parsed, graph, pool[index])
    return pooled, left


def _find(parsed: Any, graph: Any, kernel: Array) -> tuple[Any, Array] | None:
    """The first operator whose constant weights are `kernel` times a scale per filter, and the scales `[slots]`."""
    flat = kernel.reshape(len(kernel), -1).astype("float64")
    norms = (flat**2).sum(axis=1)
    for operator in graph.operators:
        if len(operator.inputs) < 2 or int(operator.inputs[1]) < 0:
            continue
        tensor = graph.tensors[int(operator.inputs[1])]
        if tensor.shape is None or tuple(int(size) for size in tensor.shape) != kernel.shape:
            continue
        value = flatbuffer.constant(parsed, tensor)
        if value is None or value.dtype != np.float32:
            continue
        there = value.reshape(flat.shape).astype("float64")
        scales = np.where(norms > 0, (there * flat).sum(axis=1) / np.where(norms > 0, norms, 1), 1.0)
        if np.abs(there - scales[:, None] * flat).max() <= SAME * max(np.abs(there).max(), 1e-30):
            return operator, scales.astype("float32")
    return None


def _take_from_pool(
    parsed: Any, graph: Any, operator: Any, scales: Array, pool: Array, index: Array, layer: FilterSharing
) -> None:
    """Puts GATHER (and MUL, where there are scales) in front of an operator, in place of its constant weights."""
    schema = flatbuffer.schema()
    inputs = [int(i) for i in operator.inputs]
    shape = [len(index), *pool.shape[1:]]
    gather = [
        flatbuffer.add_constant(parsed, graph, f"{layer.name}/{POOL}", pool),
        flatbuffer.add_constant(parsed, graph, f"{layer.name}/index", index),
    ]
    kernel = _add_tensor(graph, f"{layer.name}/filters", shape)
    options = schema.GatherOptionsT()
    options.axis = 0
    before = [_operator(parsed, "GATHER", gather, kernel, "GatherOptions", options)]
    if np.abs(scales - 1).max() > SAME:
        column = scales.reshape(-1, *[1] * (pool.ndim - 1))
        factors = [kernel, flatbuffer.add_constant(parsed, graph, f"{layer.name}/scale", column)]
        kernel = _add_tensor(graph, f"{layer.name}/kernel", shape)
        before.append(_operator(parsed, "MUL", factors, kernel, "MulOptions", schema.MulOptionsT()))
    inputs[1] = kernel
    operator.inputs = inputs
    position = next(i for i, known in enumerate(graph.operators) if known is operator)
    graph.operators[position:position] = before


def _add_tensor(graph: Any, name: str, shape: Sequence[int]) -> int:
    tensor = flatbuffer.schema().TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), 0, 0
    tensor.hasRank = True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _operator(parsed: Any, kind: str, inputs: list[int], output: int, options_type: str, options: Any) -> Any:
    schema = flatbuffer.schema()
    made = schema.OperatorT()
    made.opcodeIndex = flatbuffer.opcode_index(parsed, getattr(schema.BuiltinOperator, kind))
    made.inputs, made.outputs = inputs, [output]
    made.builtinOptionsType = getattr(schema.BuiltinOptions, options_type)
    made.builtinOptions = options
    return made
