"""`check_op`: ten checks of the contract that every op keeps."""

import dataclasses
import functools
import pathlib
import tempfile
from typing import Any

import keras
import numpy as np

from keras_efficient import ops, tflite_export
from keras_efficient.ops.attributes import Attributes
from keras_efficient.testing.checks import require, require_close, require_value_error, run_checks, values_of
from keras_efficient.testing.op_layer import OpLayer

EXAMPLES = 8
EXPORTED_EXAMPLES = 3


def check_op(op: ops.Op, *, kernel: bool = True, seed: int = 0) -> list[str]:
    """Runs ten checks on a registered op and returns their names.

    Args:
        op: The op; `op.example` supplies random calls.
        kernel: Whether the op has a C kernel (in our library, or in `op.library`); False leaves out what runs through
            the delegate.
        seed: Of the examples.

    Raises:
        CheckFailed: With the name of the check and what was found.
    """
    examples = [op.example(np.random.default_rng(seed + index)) for index in range(EXAMPLES)]
    subject = _Subject(op, examples)
    checks = [
        ("registered under a namespaced name", subject.registered),
        ("attributes survive encoding and refuse bad values", subject.attributes_are_checked),
        ("output shape and dtype are as declared", subject.shapes),
        ("reference is deterministic and finite", subject.deterministic),
        ("wrong tensors are refused", subject.wrong_tensors),
        ("gradients reach activations and float weights", subject.gradients),
        ("shut gates are neither read nor computed", subject.gates),
        ("executed cost equals dense cost when all is open, and shrinks with the gates", subject.cost),
        ("exported composite agrees with Keras in a stock runtime", subject.composite),
    ]
    if kernel:
        checks.append(("the delegate's kernel agrees and counts the same multiply-adds", subject.kernel))
    return run_checks(f"Op `{op.name}`", checks)


@dataclasses.dataclass
class _Subject:
    op: ops.Op
    examples: list[tuple[list[np.ndarray], dict[str, Any]]]

    def gate_positions(self) -> list[int]:
        return [index for index, argument in enumerate(self.op.arguments) if argument.kind == "gate"]

    def registered(self) -> None:
        require(ops.get_op(self.op.name) is self.op, "the registry holds another op under this name")
        require(self.op.version >= 1, f"expected a version of at least 1, got {self.op.version}")

    def attributes_are_checked(self) -> None:
        require(issubclass(self.op.attributes, Attributes), "expected `attributes` to derive from `Attributes`")
        for _, values in self.examples:
            attributes = self.op.attributes(**values)
            require(self.op.attributes.decode(attributes.encode()) == attributes, f"{attributes} changed by encoding")
        for field in dataclasses.fields(self.op.attributes):
            bad = functools.partial(self.op.attributes, **{field.name: object()})
            require_value_error(bad, f"attribute `{field.name}`")

    def shapes(self) -> None:
        for arrays, values in self.examples:
            output = self.op(*arrays, **values)
            declared = self.op.output_shape([array.shape for array in arrays], self.op.attributes(**values))
            require(tuple(output.shape) == tuple(declared), f"declared {declared}, got {tuple(output.shape)}")
            dtype = keras.backend.standardize_dtype(output.dtype)
            require(dtype == self.op.output_dtype, f"expected {self.op.output_dtype}, got {dtype}")

    def deterministic(self) -> None:
        for arrays, values in self.examples:
            first, second = (keras.ops.convert_to_numpy(self.op(*arrays, **values)) for _ in range(2))
            require(bool(np.isfinite(first).all()), "the reference gave values that are not finite")
            require(bool((first == second).all()), "two calls on the same tensors differed")

    def wrong_tensors(self) -> None:
        arrays, values = self.examples[0]
        require_value_error(lambda: self.op(*arrays[:-1], **values), "one tensor too few")
        require_value_error(lambda: self.op(arrays[0][None], *arrays[1:], **values), "one dimension too many")

    def gradients(self) -> None:
        if self.op.output_dtype != "float32" or self.op.arguments[0].dtype != "float32":
            return  # nothing that is trained: an exported file's integers
        arrays, values = self.examples[0]
        layer = OpLayer(self.op.name, values, [list(a.shape) for a in arrays[len(arrays) - len(self.op.weights) :]])
        inputs = arrays[: len(arrays) - len(self.op.weights)]
        layer.build([array.shape for array in inputs])
        layer.set_arrays(arrays[len(inputs) :])
        before = [values_of(variable) for variable in layer.trainable_variables]
        keras_inputs = [keras.Input(shape=a.shape[1:], batch_size=a.shape[0], dtype=str(a.dtype)) for a in inputs]
        scale = keras.layers.Dense(inputs[0].shape[-1], use_bias=False, kernel_initializer="identity", name="scale")
        output = layer([scale(keras_inputs[0]), *keras_inputs[1:]])
        model = keras.Model(keras_inputs, output)
        model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
        model.train_on_batch(list(inputs), np.ones(tuple(output.shape), "float32"))
        for variable, old in zip(layer.trainable_variables, before, strict=True):
            require(not np.array_equal(values_of(variable), old), f"no gradient reached weight `{variable.name}`")
        kernel = values_of(scale.kernel)
        require(not np.array_equal(kernel, np.eye(len(kernel))), "no gradient reached the first activation")

    def gates(self) -> None:
        for arrays, values in self.examples:
            for position in self.gate_positions():
                shut = [array.copy() for array in arrays]
                shut[position][:] = 0
                with ops.recording() as events:
                    self.op(*shut, **values)
                executed = float(keras.ops.convert_to_numpy(keras.ops.max(events[0].executed)))
                name = self.op.arguments[position].name
                require(executed == 0.0, f"{executed} multiply-adds with gate `{name}` shut altogether")

    def cost(self) -> None:
        for arrays, values in self.examples:
            shapes = [array.shape for array in arrays]
            attributes = self.op.attributes(**values)
            dense = self.op.cost(shapes, attributes)
            require(dense.macs > 0 and dense.weight_bytes >= 0, f"expected a positive cost, got {dense}")
            full = [np.full(len(arrays[p]), arrays[p].shape[-1], "float32") for p in self.gate_positions()]
            if full:
                require_close(
                    self.op.cost(shapes, attributes, full).macs, np.full(len(full[0]), dense.macs), "all gates open"
                )
            with ops.recording() as events:
                self.op(*arrays, **values)
            executed = keras.ops.convert_to_numpy(events[0].executed)
            require(bool((executed <= dense.macs * (1 + 1e-6)).all()), "executed cost exceeds the dense cost")

    def composite(self) -> None:
        for arrays, values in self.examples[:EXPORTED_EXAMPLES]:
            self._compare(arrays, values, "composite", "none")

    def kernel(self) -> None:
        for arrays, values in self.examples[:EXPORTED_EXAMPLES]:
            for form in ("composite", "custom"):
                runner, result = self._compare(arrays, values, form, "auto")
                require(runner.delegated_ops >= 1, f"the delegate did not take the op from a file with ops={form!r}")
                with ops.recording() as events:
                    self.op(*arrays, **values)
                counted = keras.ops.broadcast_to(events[0].executed, (len(arrays[0]),))
                require_close(np.mean(result.executed_macs), np.mean(counted), "multiply-adds counted by the kernel")

    def _compare(self, arrays: list[np.ndarray], values: dict[str, Any], form: str, delegate: str) -> Any:
        count = len(arrays) - len(self.op.weights)
        inputs, weights = arrays[:count], arrays[count:]
        layer = OpLayer(self.op.name, values, [list(array.shape) for array in weights])
        names = [argument.name for argument in self.op.arguments[:count]]
        keras_inputs = [
            keras.Input(a.shape[1:], dtype=str(a.dtype), name=name) for name, a in zip(names, inputs, strict=True)
        ]
        model = keras.Model(keras_inputs, layer(keras_inputs))
        layer.set_arrays(weights)
        data = dict(zip(names, inputs, strict=True))
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "op.tflite"
            tflite_export.export(model, path, ops=form, representative_data=data, batch_size=len(inputs[0]))
            runner = tflite_export.load(path, delegate=delegate)
        result = runner(**data)
        tolerance = self.op.tolerance if delegate == "auto" else 1e-4
        require_close(result.output, self.op(*arrays, **values), f"ops={form!r}, delegate={delegate!r}", tolerance)
        return runner, result
