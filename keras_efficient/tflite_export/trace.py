"""From a Keras model to a `.tflite` flatbuffer in which every op is still whole (as a custom op with its number).

Needs the TensorFlow backend. The model's own `call` runs under `ops.skipping()`, so gates and exits become IF branches.
"""

import contextlib
import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from keras_efficient import cost, ops
from keras_efficient.ops import context
from keras_efficient.ops.attributes import Attributes
from keras_efficient.ops.context import Event
from keras_efficient.ops.registry import Op
from keras_efficient.tflite_export.extras import require
from keras_efficient.tflite_export.gated_blocks import with_relu_inside
from keras_efficient.tflite_export.signatures import Signature

Tensor = Any
INSTANCE = "ke_instance"
MACS_OUTPUT = "macs"


@dataclasses.dataclass(frozen=True)
class Instance:
    """One call of an op that was met while tracing."""

    op: Op
    attributes: Attributes


@dataclasses.dataclass
class Part:
    """What tracing one signature gave.

    Attributes:
        outputs: Output names in order.
        dense_macs: Multiply-adds of builtin layers and of ops with everything open.
        branches: Whether anything became an IF branch. There is an output `macs` then, unless the exit taken tells.
    """

    outputs: list[str]
    dense_macs: tuple[float, float]
    branches: bool


@dataclasses.dataclass
class Trace:
    """What tracing gave.

    Attributes:
        content: The `.tflite` file, ops as custom ops named like the op, with their number as the attribute
            `ke_instance`.
        instances: The ops' calls; `ke_instance` counts into them.
        parts: By signature key, in the order of the signatures.
        graphs: The traced TensorFlow graphs, whose ops are named after the layers that made them.
    """

    content: bytes
    instances: list[Instance]
    parts: dict[str, Part]
    graphs: list[Any]

    @property
    def dense_macs(self) -> tuple[float, float]:
        """Multiply-adds of builtin layers and of ops, of all signatures together, with everything open."""
        builtin, own = zip(*(part.dense_macs for part in self.parts.values()), strict=True)
        return sum(builtin), sum(own)

    @property
    def branches(self) -> bool:
        """Whether any signature has an IF branch."""
        return any(part.branches for part in self.parts.values())

    def layers_of(self, op_type: str) -> list[str]:
        """Names of the layers that TensorFlow ops of that type came from."""
        nodes = [node for graph in self.graphs for node in graph.node]
        nodes += [node for graph in self.graphs for function in graph.library.function for node in function.node_def]
        return sorted({node.name.rpartition("/")[0] for node in nodes if node.op == op_type} - {""})


@contextlib.contextmanager
def inlining_ops() -> Iterator[None]:
    """While this is active an op is its reference, in full: no kernel will skip anything of it."""

    def call(op: Op, tensors: Sequence[Tensor], attributes: Attributes) -> Tensor:
        return op.reference(*tensors, **dataclasses.asdict(attributes))

    with context.calling_ops_with(call), context.inlining():
        yield


@contextlib.contextmanager
def keeping_ops(instances: list[Instance]) -> Iterator[None]:
    """While this is active an op becomes a TensorFlow function that the converter turns into one custom op."""
    tf = require("tensorflow", "tflite")

    def call(op: Op, tensors: Sequence[Tensor], attributes: Attributes) -> Tensor:
        instances.append(Instance(op, attributes))
        implements = (
            f'name: "{op.name}" attr {{ key: "tfl_fusable_op" value {{ b: true }} }} '
            f'attr {{ key: "{INSTANCE}" value {{ i: {len(instances) - 1} }} }}'
        )

        def reference(*arguments: Tensor) -> Tensor:
            with context.calling_ops_with(None):
                return op.reference(*arguments, **dataclasses.asdict(attributes))

        whole = tf.function(reference, experimental_implements=implements, autograph=False)
        return whole(*[tf.convert_to_tensor(tensor) for tensor in tensors])

    with context.calling_ops_with(call):
        yield


def trace(
    model: keras.Model,
    signatures: Sequence[Signature],
    *,
    whole_ops: bool,
    quantizing: Callable[[], contextlib.AbstractContextManager[None]] | None = None,
) -> Trace:
    """Traces and converts the signatures of one model into one file; weights that they share are in it once.

    Args:
        model: Built Keras model on the TensorFlow backend, whose layers the signatures call.
        signatures: What to trace.
        whole_ops: Whether ops stay whole (False: their reference is written in builtin ops).
        quantizing: Context in which the layers place fake-quant nodes (see `int8`); the file becomes int8 then.

    Raises:
        ValueError: If the converter cannot express something; the message names it.
    """
    tf = require("tensorflow", "tflite")
    instances: list[Instance] = []
    parts: dict[str, Part] = {}
    module = tf.Module()
    module.functions = [
        _traced_function(model, signature, instances, parts, whole_ops, quantizing) for signature in signatures
    ]
    concrete = {
        signature.key: function.get_concrete_function()
        for signature, function in zip(signatures, module.functions, strict=True)
    }
    variables = {id(v): v for function in concrete.values() for v in function.graph.variables}
    module.values = list(variables.values())  # tracked one by one, or the converter does not freeze them
    content = convert(module, concrete, int8=quantizing is not None)
    parts = {key: dataclasses.replace(parts[key], outputs=list(concrete[key].structured_outputs)) for key in concrete}
    return Trace(content, instances, parts, [function.graph.as_graph_def() for function in concrete.values()])


def _traced_function(
    model: keras.Model,
    signature: Signature,
    instances: list[Instance],
    parts: dict[str, Part],
    whole_ops: bool,
    quantizing: Callable[[], contextlib.AbstractContextManager[None]] | None,
) -> Any:
    """A TensorFlow function of one signature; tracing it fills `instances` and `parts`."""
    tf = require("tensorflow", "tflite")

    def serve(*tensors: Tensor) -> dict[str, Tensor]:
        keeping = keeping_ops(instances) if whole_ops else inlining_ops()
        quantize = quantizing() if quantizing is not None else contextlib.nullcontext()
        counting: contextlib.AbstractContextManager[list[Event]] = (
            cost.counting(model) if signature.known_macs is None else contextlib.nullcontext([])
        )
        with keeping, ops.skipping(_skips(signature)), with_relu_inside(model), quantize, counting as events:
            outputs = signature.function(*tensors)
        dense = [sum(event.dense for event in events if event.by_op is kind) for kind in (False, True)]
        counts = any(event.name == "branch" for event in events)
        known = signature.known_macs
        parts[signature.key] = Part([], known or (dense[0], dense[1]), counts or known is not None)
        named = {name: tf.identity(tf.convert_to_tensor(value), name=name) for name, value in outputs.items()}
        if counts:
            if MACS_OUTPUT in named:
                raise ValueError(
                    f"Invalid output name {MACS_OUTPUT!r}. Expected another one, since files with branches have an "
                    "output of that name"
                )
            named[MACS_OUTPUT] = tf.reshape(tf.stack([_executed(events, kind) for kind in (False, True)]), (2,))
        return named

    return tf.function(serve, input_signature=_tensor_specs(signature), autograph=False)


def _executed(events: Sequence[Event], by_op: bool) -> Tensor:
    """Multiply-adds `[1]` of one kind, of all samples together."""
    tf = require("tensorflow", "tflite")
    counts = [event.executed for event in events if event.by_op is by_op]
    return tf.add_n([n if n.shape == (1,) else tf.reshape(tf.reduce_sum(n), (1,)) for n in counts] or [tf.zeros((1,))])


def _skips(signature: Signature) -> bool:
    return signature.skips and signature.specs[0].shape[0] == 1


def _tensor_specs(signature: Signature) -> list[Any]:
    tf = require("tensorflow", "tflite")
    return [tf.TensorSpec(spec.shape, spec.dtype, name=spec.name) for spec in signature.specs]


def reference_function(signature: Signature) -> Callable[..., dict[str, Any]]:
    """What Keras computes, exits skipped as in a file: arrays by input name to arrays by output name."""
    tf = require("tensorflow", "tflite")

    def serve(*tensors: Tensor) -> dict[str, Tensor]:
        with ops.skipping(_skips(signature)):
            return signature.function(*tensors)

    function = tf.function(serve, input_signature=_tensor_specs(signature), autograph=False).get_concrete_function()

    def reference(**arrays: Any) -> dict[str, Any]:
        result = function(*[tf.constant(arrays[spec.name]) for spec in signature.specs])
        return {name: value.numpy() for name, value in result.items()}

    return reference


def convert(module: Any, signatures: dict[str, Any], int8: bool = False) -> bytes:
    """Converts the concrete functions of a module, builtin ops and named custom ops only, no Flex.

    Raises:
        ValueError: If something has no builtin op; the converter's own sentence is part of the message.
    """
    tf = require("tensorflow", "tflite")
    with tempfile.TemporaryDirectory() as directory, _quiet():
        tf.saved_model.save(module, directory, signatures=signatures)
        converter = tf.lite.TFLiteConverter.from_saved_model(directory, signature_keys=list(signatures))
        converter.allow_custom_ops = True
        converter.experimental_enable_resource_variables = False
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if int8:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        try:
            return bytes(converter.convert())
        except Exception as error:
            lines = [line for line in str(error).splitlines() if "error:" in line] or str(error).splitlines()[:3]
            raise ValueError(
                f"The TFLite converter cannot express this model in builtin ops: {' '.join(lines)[:1500]}"
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the converter's C++ log lines off the terminal; exceptions pass."""
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
