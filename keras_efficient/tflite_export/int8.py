"""int8 files: ranges are calibrated in Keras and written into the traced graph as fake-quant nodes.

The converter's own calibration never enters a branch that its inputs do not take, and stops at ops that it does not
know. So the model runs once over the representative data with everything computed, the range of every layer's inputs
and outputs is noted, and while the exporter traces, each of those tensors passes a fake-quant node with that range
(twice around a branch, so that both sides know it). The converter then makes int8 of all builtin ops; `int8_ops`
puts int8 twins in place of our own where they have one, others stay float32 between dequantise and quantise.
"""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_efficient.cost.observe import shadowed, wrapped_calls
from keras_efficient.tflite_export import flatbuffer
from keras_efficient.tflite_export.extras import require
from keras_efficient.tflite_export.gated_blocks import layer_gates, with_relu_inside, wrapped_borders
from keras_efficient.tflite_export.prune import decomposition_indices
from keras_efficient.tflite_export.signatures import InputSpec, call_model

Tensor = Any
BATCH = 64
FUSED = (keras.layers.BatchNormalization, keras.layers.Activation, keras.layers.ReLU)
FUSED_ACTIVATIONS = ("linear", "relu", "relu6")
BEFORE_ACTIVATION = -1
"""Place among a layer's inputs of what its activation reads."""
POOLED = -2
"""Place among a layer's inputs of the means that its gate net reads."""
BORDER = -3
"""Place among a layer gate's inputs of the first tensor that enters its branches; the others go on downwards."""
SILENT = (keras.layers.InputLayer, keras.layers.Dropout)


@dataclasses.dataclass
class Range:
    """Smallest and largest value seen, with 0 inside as affine quantisation needs it."""

    low: float = 0.0
    high: float = 0.0

    def widen(self, tensor: Tensor) -> None:
        """Takes a tensor's values in."""
        values = keras.ops.convert_to_numpy(tensor)
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))


@dataclasses.dataclass
class Site:
    """What is known of one layer: the ranges of its inputs and outputs by position, and who reads each output."""

    inputs: dict[int, Range]
    outputs: dict[int, Range]
    fused_readers: dict[int, bool]


def calibrated(
    model: keras.Model,
    specs: Sequence[InputSpec],
    data: Any,
    quantize: Callable[[Tensor, Range], Tensor] | None = None,
) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Runs the model over the data; returns a context in which its layers place fake-quant nodes with those ranges.

    Args:
        model: Built model.
        specs: Its inputs.
        data: Real inputs.
        quantize: What to place instead of the node that the converter knows.
    """
    sites = observe(model, specs, data)

    def place(tensor: Tensor, found: Range | None) -> Tensor:
        if found is None or not _is_float(tensor):
            return tensor
        return (quantize or _fake_quant)(tensor, found)

    @contextlib.contextmanager
    def quantizing() -> Iterator[None]:
        def call(layer: keras.Layer, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            site = sites.get(id(layer))
            if site is None:
                return original(*args, **kwargs)
            if not _fuses(layer):
                args, kwargs = _mapped_inputs(args, kwargs, lambda i, t: place(t, site.inputs.get(i)))
            outputs = original(*args, **kwargs)
            flat = keras.tree.flatten(outputs)
            placed = [
                t if site.fused_readers.get(i, False) else place(t, site.outputs.get(i)) for i, t in enumerate(flat)
            ]
            return keras.tree.pack_sequence_as(outputs, placed)

        def summary(exit_unit: Any, original: Callable[..., Any], tensor: Tensor) -> Any:
            found = sites.get(id(exit_unit))
            return original(place(tensor, None if found is None else found.inputs.get(0)))

        def activation(unit: keras.Layer, original: Callable[..., Any], tensor: Tensor) -> Any:
            site = sites.get(id(unit))
            return original(place(tensor, None if site is None else site.inputs.get(BEFORE_ACTIVATION)))

        def pool(layer: Any, original: Callable[..., Any], tensor: Tensor) -> Any:
            site = sites.get(id(layer))
            return place(original(tensor), None if site is None else site.inputs.get(POOLED))

        def border_range(gate: Any, border: int) -> Range | None:
            site = sites.get(id(gate))
            return None if site is None else site.inputs.get(BORDER - border)

        def entering(gate: Any, tensor: Tensor, border: int) -> Any:
            return place(tensor, border_range(gate, border))

        def leaving(gate: Any, leave: Callable[..., Any], tensor: Tensor, is_open: bool) -> Any:
            found = border_range(gate, gate.OUTPUT)
            rectified = found is not None and found.low == 0.0  # by the range alone, without an operator
            return place(tensor if rectified and not is_open else leave(tensor, is_open), found)

        def whole(gate: Any, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
            return place(original(*args, **kwargs), border_range(gate, gate.OUTPUT))

        calls = wrapped_calls([*units(model), *stages(model)], call)
        gates = wrapped_calls(layer_gates(model), whole)
        pools = wrapped_pools(model, pool)
        activations = wrapped_activations(model, activation)
        borders = wrapped_borders(model, entering, leaving)
        with calls, gates, borders, wrapped_summaries(model, summary), activations, pools, _float_policy(model):
            yield

    return quantizing


def observe(model: keras.Model, specs: Sequence[InputSpec], data: Any) -> dict[int, Site]:
    """Ranges of every leaf layer's tensors over the data, by the layer's id."""
    arrays = data if isinstance(data, dict) else {specs[0].name: data}
    sites: dict[int, Site] = {}
    produced: dict[int, tuple[Site, int, Tensor]] = {}
    boundaries = {id(stage) for stage in stages(model)}

    def call(layer: keras.Layer, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        outputs = original(*args, **kwargs)
        if isinstance(layer, SILENT) or getattr(layer, "computes_in_float", False):
            return outputs
        site = sites.setdefault(id(layer), Site({}, {}, {}))
        fused = _fuses(layer)

        def note(index: int, tensor: Tensor) -> Tensor:
            site.inputs.setdefault(index, Range()).widen(tensor)
            if id(tensor) in produced:
                source, position, _ = produced[id(tensor)]
                source.fused_readers[position] = source.fused_readers.get(position, True) and fused
            return tensor

        _mapped_inputs(args, kwargs, note)
        if id(layer) in boundaries:
            for tensor in keras.tree.flatten(outputs):
                if id(tensor) in produced:  # 8 bits, whatever the next stage does with it
                    source, position, _ = produced[id(tensor)]
                    source.fused_readers[position] = False
            return outputs
        for index, tensor in enumerate(keras.tree.flatten(outputs)):
            if _is_float(tensor) and not any(tensor is t for t in keras.tree.flatten((args, kwargs))):
                site.outputs.setdefault(index, Range()).widen(tensor)
                produced[id(tensor)] = (site, index, tensor)
        return outputs

    def summary(exit_unit: Any, original: Callable[..., Any], tensor: Tensor) -> Any:
        sites.setdefault(id(exit_unit), Site({}, {}, {})).inputs.setdefault(0, Range()).widen(tensor)
        return original(tensor)

    def activation(unit: keras.Layer, original: Callable[..., Any], tensor: Tensor) -> Any:
        sites.setdefault(id(unit), Site({}, {}, {})).inputs.setdefault(BEFORE_ACTIVATION, Range()).widen(tensor)
        return original(tensor)

    count = len(next(iter(arrays.values())))

    def pool(layer: Any, original: Callable[..., Any], tensor: Tensor) -> Any:
        pooled = original(tensor)
        sites.setdefault(id(layer), Site({}, {}, {})).inputs.setdefault(POOLED, Range()).widen(pooled)
        return pooled

    def widen(gate: Any, border: int, tensor: Tensor) -> Tensor:
        sites.setdefault(id(gate), Site({}, {}, {})).inputs.setdefault(BORDER - border, Range()).widen(tensor)
        return tensor

    def entering(gate: Any, tensor: Tensor, border: int) -> Any:
        return widen(gate, border, tensor)

    def leaving(gate: Any, leave: Callable[..., Any], tensor: Tensor, is_open: bool) -> Any:
        return widen(gate, gate.OUTPUT, leave(tensor, is_open))

    calls = wrapped_calls([*units(model), *stages(model)], call)
    pools, borders = wrapped_pools(model, pool), wrapped_borders(model, entering, leaving)
    summaries, activations = wrapped_summaries(model, summary), wrapped_activations(model, activation)
    with calls, with_relu_inside(model), borders, summaries, activations, pools:
        for start in range(0, count, BATCH):
            produced.clear()
            tensors = [
                keras.ops.convert_to_tensor(np.asarray(arrays[s.name][start : start + BATCH], s.dtype)) for s in specs
            ]
            call_model(model, specs, tensors)
    return sites


def _fuses(layer: keras.layers.Layer) -> bool:
    """Whether a layer becomes part of the operator before it, so that there is no tensor in between."""
    if isinstance(layer, keras.layers.ReLU):
        return layer.max_value in (None, 6.0) and not layer.negative_slope and not layer.threshold
    return isinstance(layer, FUSED)


def units(model: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers of a model that compute something themselves.

    Those without layers inside, and those that call an op of ours (`calls_op = True`), whatever they hold inside.
    """
    found: dict[int, keras.layers.Layer] = {}
    for layer in model._flatten_layers(include_self=False, recursive=False):
        inside = [] if getattr(layer, "calls_op", False) else units(layer)
        found.update({id(unit): unit for unit in inside or [layer]})
    return list(found.values())


def stages(model: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The stages of a network with exits that hold layers: places where a branch or another signature begins."""
    found = {id(unit) for unit in units(model)}
    return [stage for stage in getattr(model, "stages", []) if id(stage) not in found]


@contextlib.contextmanager
def wrapped_activations(model: Any, around: Callable[[Any, Callable[..., Any], Tensor], Any]) -> Iterator[None]:
    """Inside, `around(layer, activation, tensor)` runs in place of each activation that no operator fuses.

    What it reads, such as the sum that a swish or softmax inside of a layer takes, needs a range of its own.
    """
    with contextlib.ExitStack() as stack:
        for unit in units(model):
            function = getattr(unit, "activation", None)
            if callable(function) and getattr(function, "__name__", "") not in FUSED_ACTIVATIONS:
                stack.enter_context(shadowed(unit, "activation", functools.partial(around, unit, function)))
        yield


@contextlib.contextmanager
def wrapped_summaries(model: Any, around: Callable[[Any, Callable[..., Any], Tensor], Any]) -> Iterator[None]:
    """Inside, `around(exit, run, summary)` stands between an exit and the running summary that it gets.

    A summary comes from before the branch, or from another signature, and joins other features before a layer sees it.
    """
    with contextlib.ExitStack() as stack:
        for exit_unit in getattr(model, "exits", []):
            original = exit_unit.branch_and_summary

            def run(
                features: Tensor,
                summary: Tensor = None,
                training: bool | None = None,
                exit_unit: Any = exit_unit,
                original: Callable[..., Any] = original,
            ) -> Any:
                if summary is None:
                    return original(features, None, training)
                return around(exit_unit, lambda tensor: original(features, tensor, training), summary)

            stack.enter_context(shadowed(exit_unit, "branch_and_summary", run))
        yield


@contextlib.contextmanager
def wrapped_pools(model: Any, around: Callable[[Any, Callable[..., Any], Tensor], Any]) -> Iterator[None]:
    """Inside, `around(layer, pool, x)` stands in for what a layer's gate net reads, so that it is pooled in int8."""
    with contextlib.ExitStack() as stack:
        for layer in model._flatten_layers(include_self=False):
            pool = getattr(layer, "pool_for_gate", None)
            if pool is not None:
                run = functools.partial(around, layer, pool)
                stack.enter_context(shadowed(layer, "pool_for_gate", run))
        yield


@contextlib.contextmanager
def _float_policy(model: Any) -> Iterator[None]:
    """Inside, a policy reads the summary as float32, apart from the network's 8 bits.

    Joined with it, an exit's features would get the summary's scale. The absolute value of what is never negative is
    itself, and an op through which the converter hands no scale on.
    """
    if not hasattr(model, "exit_score"):
        yield
        return
    original = model.exit_score

    def score(k: int, logits: Tensor, carry: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        if "summary" in carry:
            carry = {**carry, "summary": keras.ops.absolute(carry["summary"])}
        return original(k, logits, carry, *args, **kwargs)

    with shadowed(model, "exit_score", score):
        yield


def _mapped_inputs(args: Any, kwargs: Any, function: Callable[[int, Tensor], Tensor]) -> Any:
    """Applies a function to every float tensor among the arguments, numbered in order."""
    flat = keras.tree.flatten((args, kwargs))
    mapped = [function(index, value) if _is_float(value) else value for index, value in enumerate(flat)]
    return keras.tree.pack_sequence_as((args, kwargs), mapped)


def _is_float(value: Any) -> bool:
    return (
        keras.ops.is_tensor(value) and "float" in keras.backend.standardize_dtype(value.dtype) and len(value.shape) > 1
    )


def _fake_quant(tensor: Tensor, found: Range) -> Tensor:
    tf = require("tensorflow", "tflite")
    high = max(found.high, found.low + 1e-6)
    return tf.quantization.fake_quant_with_min_max_args(tensor, found.low, high, num_bits=8)


def float_layers(model: Any) -> list[keras.layers.Layer]:
    """The layers of a network that stay float32 on purpose: its exit policy, and those that say so."""
    policy = getattr(model, "policy", None)
    chosen = [layer for layer in model._flatten_layers() if getattr(layer, "computes_in_float", False)]
    return chosen if policy is None else [policy, *chosen]


def quantized_share(model: Any, in_float: Sequence[keras.layers.Layer] = ()) -> tuple[float, list[str]]:
    """The share of arithmetic ops (convolution, dense, addition, pooling) with int8 inputs; a note on the others.

    The ops of layers that stay float32 on purpose are not counted: exit policies, which compare close numbers, and what
    computes where to look in an image of many pixels.
    """
    names_in_float = "|".join(re.escape(layer.name) for layer in in_float)
    left_out = re.compile(rf"(^|[/;])({names_in_float})(_\d+)?/" if in_float else "(?!)")
    names = flatbuffer.builtin_names()
    arithmetic = {
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "FULLY_CONNECTED",
        "ADD",
        "MEAN",
        "AVERAGE_POOL_2D",
        "MAX_POOL_2D",
        "BATCH_MATMUL",
    }
    whole, total = 0, 0
    left: dict[str, int] = {}
    decompositions = decomposition_indices(model)
    for number, subgraph in enumerate(model.subgraphs):
        for operator in subgraph.operators or []:
            name = names[flatbuffer.operator_code(model, operator)[0]]
            if number in decompositions or name not in arithmetic or len(operator.inputs) == 0:
                continue
            if len(subgraph.tensors[operator.outputs[0]].shape) < 2:
                continue  # the count of multiply-adds, no part of the network
            named = [flatbuffer.text(subgraph.tensors[i].name) for i in [*operator.inputs, *operator.outputs] if i >= 0]
            if any(left_out.search(name) for name in named):
                continue
            total += 1
            if subgraph.tensors[operator.inputs[0]].type == flatbuffer.schema().TensorType.INT8:
                whole += 1
            else:
                left[name] = left.get(name, 0) + 1
    notes = (
        [f"Stayed float32: {', '.join(f'{count} x {name}' for name, count in sorted(left.items()))}."] if left else []
    )
    return (whole / total if total else 0.0), notes
