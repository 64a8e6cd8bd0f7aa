"""`ke.multi_bit_conv_2d_int8`: the multi-bit convolution between int8 tensors.

    x = input_scale * (integer - input_zero_point)
    y[b, :, :, o] = saturate(round(multi_bit_conv_2d(x)[b, :, :, o] / output_scale) + output_zero_point)

`saturate` cuts at -128 and 127, `round` takes halves to even. Weights, multi-bit inputs, groups and padding are those
of `ke.multi_bit_conv_2d`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_efficient.ops.attributes import attribute
from keras_efficient.ops.multi_bit_conv_2d import MultiBitConv2DAttributes, multi_bit_conv_2d
from keras_efficient.ops.multi_bit_weights import MAX_BITS, WEIGHTS
from keras_efficient.ops.registry import Argument, Cost, Op, Shape, register_op

Tensor = Any


@dataclasses.dataclass(frozen=True)
class MultiBitConv2DInt8Attributes(MultiBitConv2DAttributes):
    """Those of `ke.multi_bit_conv_2d`, and what the integers stand for: `real = scale * (integer - zero_point)`."""

    input_scale: float = attribute(1.0, minimum=1e-30, maximum=1e30)
    input_zero_point: int = attribute(0, minimum=-128, maximum=127)
    output_scale: float = attribute(1.0, minimum=1e-30, maximum=1e30)
    output_zero_point: int = attribute(0, minimum=-128, maximum=127)


def reference(x: Tensor, *tensors: Tensor, **attributes: Any) -> Tensor:
    """The definition. `x [B, H, W, I]` int8; the other arguments are those of `ke.multi_bit_conv_2d`."""
    values = MultiBitConv2DInt8Attributes(**attributes)
    real = (ops.cast(x, "float32") - float(values.input_zero_point)) * values.input_scale
    shared = {field.name: getattr(values, field.name) for field in dataclasses.fields(MultiBitConv2DAttributes)}
    y = multi_bit_conv_2d.reference(real, *tensors, **shared)
    steps = ops.round(y / values.output_scale) + float(values.output_zero_point)
    return ops.cast(ops.clip(steps, -128.0, 127.0), "int8")


def output_shape(shapes: Sequence[Shape], attributes: MultiBitConv2DInt8Attributes) -> Shape:
    """`[B, H', W', O]`; a dimension that is not known stays None."""
    return multi_bit_conv_2d.output_shape(shapes, attributes)


def cost(
    shapes: Sequence[Shape], attributes: MultiBitConv2DInt8Attributes, open_counts: Sequence[Tensor] | None = None
) -> Cost:
    """The cost of `ke.multi_bit_conv_2d`."""
    return multi_bit_conv_2d.cost(shapes, attributes, open_counts)


def example(rng: np.random.Generator) -> tuple[list[np.ndarray], dict[str, Any]]:
    """A random valid call: the float op's example, quantised."""
    (x, *tensors), attributes = multi_bit_conv_2d.example(rng)
    input_scale, output_scale = (float(np.float32(value)) for value in rng.uniform((0.01, 0.02), (0.03, 0.06)))
    zero_points = [int(value) for value in rng.integers(-60, 60, 2)]
    integers = np.clip(np.rint(x / input_scale) + zero_points[0], -128, 127).astype("int8")
    quantization = {
        "input_scale": input_scale,
        "input_zero_point": zero_points[0],
        "output_scale": output_scale,
        "output_zero_point": zero_points[1],
    }
    return [integers, *tensors], {**attributes, **quantization}


multi_bit_conv_2d_int8 = register_op(
    Op(
        name="ke.multi_bit_conv_2d_int8",
        version=1,
        arguments=(Argument("x", "activation", 4, dtype="int8"), MAX_BITS, *WEIGHTS),
        attributes=MultiBitConv2DInt8Attributes,
        reference=reference,
        output_shape=output_shape,
        cost=cost,
        example=example,
        tolerance=0.08,
        output_dtype="int8",
    )
)
