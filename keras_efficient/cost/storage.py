"""Parameters and bytes: what a layer's own weights take as they are stored."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import ml_dtypes
import numpy as np


def own_weights(layer: Any) -> list[Any]:
    """The weights that belong to the layer itself and to no layer inside it, state of random numbers left out."""
    inside = {id(weight) for child in layer._flatten_layers(include_self=False) for weight in child.weights}
    return [weight for weight in layer.weights if id(weight) not in inside]


def bytes_of(shape: Sequence[int], dtype: Any) -> float:
    """Bytes of a tensor; `int4` takes half a byte."""
    name = keras.backend.standardize_dtype(dtype)
    if name in ("int4", "uint4"):
        return math.prod(shape) * 0.5
    size = np.dtype(getattr(ml_dtypes, name, name)).itemsize
    return float(math.prod(shape) * size)


def stored_bytes(layer: Any, weights: Sequence[Any]) -> float:
    """Bytes of a layer's own weights: what its method `stored_bytes()` says, or else their size in their own dtype."""
    if hasattr(layer, "stored_bytes"):
        return float(layer.stored_bytes())
    return sum(bytes_of(weight.shape, weight.dtype) for weight in weights)
