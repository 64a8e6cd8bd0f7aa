"""What the integers of int8 ops stand for: `real = scale * (integer - zero_point)`."""

import dataclasses
from typing import Any

import numpy as np

from keras_efficient.ops.attributes import Attributes, attribute


@dataclasses.dataclass(frozen=True)
class Int8Input(Attributes):
    """The attributes of an op whose input is int8."""

    input_scale: float = attribute(1.0, minimum=1e-30, maximum=1e30)
    input_zero_point: int = attribute(0, minimum=-128, maximum=127)


@dataclasses.dataclass(frozen=True)
class Int8InputAndOutput(Int8Input):
    """The attributes of an op between int8 tensors."""

    output_scale: float = attribute(1.0, minimum=1e-30, maximum=1e30)
    output_zero_point: int = attribute(0, minimum=-128, maximum=127)


def quantized(x: np.ndarray, scale: float, zero_point: int) -> np.ndarray:
    """The integers nearest to real values."""
    return np.clip(np.rint(x / scale) + zero_point, -128, 127).astype("int8")


def drawn_quantization(rng: np.random.Generator, zero_points: tuple[int, int] = (-128, 128)) -> dict[str, Any]:
    """Random values of the attributes of `Int8InputAndOutput`, for inputs of a few units."""
    input_scale, output_scale = (float(np.float32(value)) for value in rng.uniform((0.01, 0.01), (0.05, 0.05)))
    input_zero_point, output_zero_point = (int(value) for value in rng.integers(*zero_points, 2))
    return {
        "input_scale": input_scale,
        "input_zero_point": input_zero_point,
        "output_scale": output_scale,
        "output_zero_point": output_zero_point,
    }
