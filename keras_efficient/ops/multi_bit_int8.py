"""The multi-bit ops between int8 tensors: the float op between real values and steps.

    x = input_scale * (integer - input_zero_point)
    y = saturate(round(op(x) / output_scale) + output_zero_point)

`saturate` cuts at -128 and 127, `round` takes halves to even. Weights, multi-bit inputs, groups and padding, the shape
of the output and the cost are those of the float op.
"""

import dataclasses
from typing import Any

import numpy as np
from keras import ops

from keras_efficient.ops.int8 import Int8InputAndOutput, drawn_quantization, quantized
from keras_efficient.ops.registry import Argument, Op, register_op

Tensor = Any


def registered_between_integers(op: Op, attributes: type[Int8InputAndOutput]) -> Op:
    """The op `<name>_int8`, version 1; `attributes` are those of `op` and what the integers stand for."""

    def reference(x: Tensor, *tensors: Tensor, **values: Any) -> Tensor:
        """The definition. `x` is int8; the other arguments are those of the float op."""
        shared = {field.name: values[field.name] for field in dataclasses.fields(op.attributes)}
        real = (ops.cast(x, "float32") - float(values["input_zero_point"])) * values["input_scale"]
        steps = ops.round(op.reference(real, *tensors, **shared) / values["output_scale"])
        return ops.cast(ops.clip(steps + float(values["output_zero_point"]), -128.0, 127.0), "int8")

    def example(rng: np.random.Generator) -> tuple[list[np.ndarray], dict[str, Any]]:
        """A random valid call: the float op's example, quantised."""
        (x, *tensors), values = op.example(rng)
        quantization = drawn_quantization(rng, (-60, 60))
        integers = quantized(x, quantization["input_scale"], quantization["input_zero_point"])
        return [integers, *tensors], {**values, **quantization}

    x, *others = op.arguments
    return register_op(
        Op(
            name=f"{op.name}_int8",
            version=1,
            arguments=(Argument("x", "activation", x.rank, dtype="int8"), *others),
            attributes=attributes,
            reference=reference,
            output_shape=op.output_shape,
            cost=op.cost,
            example=example,
            tolerance=0.08,
            output_dtype="int8",
        )
    )
