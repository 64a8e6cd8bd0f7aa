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
from keras_efficient.ops.registry import Op
from keras_efficient.tflite_export.extras import require

Tensor = Any
INSTANCE = "ke_instance"
MACS_OUTPUT = "macs"


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One input of the model: its name in the signature, shape with the batch in front, and dtype."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Instance:
    """One call of an op that was met while tracing."""

    op: Op
    attributes: Attributes


@dataclasses.dataclass
class Trace:
    """What tracing gave.

    Attributes:
        content: The `.tflite` file, ops as custom ops named like the op, with their number as the attribute
            `ke_instance`.
        instances: The ops' calls; `ke_instance` counts into them.
        outputs: Output names in order.
        dense_macs: Multiply-adds of builtin layers and of ops with everything open.
        branches: Whether anything became an IF branch, in which case there is an output `macs`.
        graph: The traced TensorFlow graph, whose ops are named after the layers that made them.
    """

    content: bytes
    instances: list[Instance]
    outputs: list[str]
    dense_macs: tuple[float, float]
    branches: bool
    graph: Any

    def layers_of(self, op_type: str) -> list[str]:
        """Names of the layers that TensorFlow ops of that type came from."""
        nodes = [*self.graph.node, *(node for function in self.graph.library.function for node in function.node_def)]
        return sorted({node.name.rpartition("/")[0] for node in nodes if node.op == op_type} - {""})


def input_specs(model: keras.Model, batch_size: int | None) -> list[InputSpec]:
    """The inputs of a built model, with `batch_size` in front.

    Raises:
        ValueError: If the model is not built, or a dimension other than the batch is dynamic.
    """
    if not model.built:
        raise ValueError(
            f"Invalid value for argument `model`. Expected a built model. Received: {model.name!r}, not built yet"
        )
    inputs = getattr(model, "inputs", None)
    if inputs:
        tensors = [(t.name, tuple(t.shape), keras.backend.standardize_dtype(t.dtype)) for t in inputs]
    else:
        config = model.get_build_config() or {}
        shape = config.get("input_shape")
        if shape is None or any(isinstance(size, (list, tuple, dict)) for size in shape):
            raise ValueError(
                "Invalid value for argument `model`. Expected a model whose input shapes are known (Sequential, "
                f"Functional, or built on one tensor). Received: {model.name!r} with build configuration {config}"
            )
        tensors = [("input", tuple(shape), "float32")]
    specs = []
    for name, shape, dtype in tensors:
        if any(size is None for size in shape[1:]):
            raise ValueError(
                "Invalid value for argument `model`. Expected static dimensions behind the batch (gated ops and "
                f".tflite files need them). Received: input {name!r} of shape {shape}"
            )
        specs.append(InputSpec(name, (batch_size, *shape[1:]), dtype))
    return specs


def named_outputs(model: keras.Model, outputs: Any) -> dict[str, Tensor]:
    """A model's outputs by name: a dictionary's keys, the names of several outputs, or `"output"` for a single one."""
    if isinstance(outputs, dict):
        return dict(outputs)
    if isinstance(outputs, (list, tuple)):
        names = getattr(model, "output_names", None) or []
        if len(names) != len(outputs) or len(set(names)) != len(names):
            names = [f"output_{index}" for index in range(len(outputs))]
        return dict(zip(names, outputs, strict=True))
    return {"output": outputs}


def call_model(model: keras.Model, specs: Sequence[InputSpec], tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """The model in inference on tensors in the order of `specs`, outputs by name."""
    if len(tensors) == 1:
        inputs: Any = tensors[0]
    elif isinstance(getattr(model, "input", None), dict):
        inputs = {spec.name: tensor for spec, tensor in zip(specs, tensors, strict=True)}
    else:
        inputs = list(tensors)
    return named_outputs(model, model(inputs, training=False))


def inlining_ops() -> contextlib.AbstractContextManager[None]:
    """While this is active an op is its reference, in full: no kernel will skip anything of it."""

    def call(op: Op, tensors: Sequence[Tensor], attributes: Attributes) -> Tensor:
        return op.reference(*tensors, **dataclasses.asdict(attributes))

    return context.calling_ops_with(call)


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
    specs: Sequence[InputSpec],
    *,
    whole_ops: bool,
    signature: str,
    quantizing: Callable[[], contextlib.AbstractContextManager[None]] | None = None,
) -> Trace:
    """Traces and converts a model.

    Args:
        model: Built Keras model on the TensorFlow backend.
        specs: Inputs of the signature.
        whole_ops: Whether ops stay whole (False: their reference is written in builtin ops).
        signature: Key of the signature in the file.
        quantizing: Context in which the layers place fake-quant nodes (see `int8`); the file becomes int8 then.

    Raises:
        ValueError: If the converter cannot express something; the message names it.
    """
    tf = require("tensorflow", "tflite")
    instances: list[Instance] = []
    dense = [0.0, 0.0]
    branches = False
    skip = specs[0].shape[0] == 1

    def serve(*tensors: Tensor) -> dict[str, Tensor]:
        nonlocal branches
        keeping = keeping_ops(instances) if whole_ops else inlining_ops()
        quantize = quantizing() if quantizing is not None else contextlib.nullcontext()
        with keeping, ops.skipping(skip), quantize, cost.counting(model) as events:
            outputs = call_model(model, specs, tensors)
        dense[:] = [sum(event.dense for event in events if event.by_op is kind) for kind in (False, True)]
        branches = any(event.name == "branch" for event in events)
        named = {name: tf.identity(tf.convert_to_tensor(value), name=name) for name, value in outputs.items()}
        if branches:
            if MACS_OUTPUT in named:
                raise ValueError(
                    f"Invalid output name {MACS_OUTPUT!r}. Expected another one, since files with branches have an "
                    "output of that name"
                )
            sums = [
                tf.add_n([tf.reduce_sum(e.executed) for e in events if e.by_op is kind] or [tf.zeros(())])
                for kind in (False, True)
            ]
            named[MACS_OUTPUT] = tf.stack(sums)
        return named

    module = tf.Module()
    signature_specs = [tf.TensorSpec(spec.shape, spec.dtype, name=spec.name) for spec in specs]
    module.serve = tf.function(serve, input_signature=signature_specs, autograph=False)
    concrete = module.serve.get_concrete_function()
    module.values = list(concrete.graph.variables)  # tracked one by one, or the converter does not freeze them
    content = convert(module, {signature: concrete}, int8=quantizing is not None)
    names = list(concrete.structured_outputs)
    return Trace(content, instances, names, (dense[0], dense[1]), branches, concrete.graph.as_graph_def())


def reference_function(model: keras.Model, specs: Sequence[InputSpec]) -> Callable[..., dict[str, Any]]:
    """The model's own inference, exits skipped as in a file: arrays by input name to arrays by output name."""
    tf = require("tensorflow", "tflite")

    def serve(*tensors: Tensor) -> dict[str, Tensor]:
        with ops.skipping(specs[0].shape[0] == 1):
            return call_model(model, specs, tensors)

    signature = [tf.TensorSpec(spec.shape, spec.dtype, name=spec.name) for spec in specs]
    function = tf.function(serve, input_signature=signature, autograph=False)

    def reference(**arrays: Any) -> dict[str, Any]:
        result = function(*[tf.constant(arrays[spec.name]) for spec in specs])
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
