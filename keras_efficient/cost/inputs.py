"""What a model is run on to see its cost: zeros of its input shapes, or given data in batches."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


def zero_inputs(model: keras.Model, batch_size: int) -> Any:
    """Zeros in the structure of the model's inputs.

    Raises:
        ValueError: If the input shapes are not known, or a dimension behind the batch is dynamic.
    """
    specs = _input_specs(model)
    if specs is None:
        raise ValueError(
            "Invalid value for argument `model`. Expected known input shapes (Sequential, Functional, or built on one "
            f"argument), or argument `data` beside it. Received: {model.name!r}"
        )
    for spec in keras.tree.flatten(specs):
        if None in spec.shape[1:]:
            raise ValueError(
                "Invalid value for argument `model`. Expected static dimensions behind the batch, or argument `data` "
                f"beside it. Received: {model.name!r} with an input of shape {spec.shape}"
            )
    return keras.tree.map_structure(lambda spec: np.zeros((batch_size, *spec.shape[1:]), spec.dtype), specs)


def batches(model: keras.Model, data: Any, batch_size: int) -> Iterator[tuple[Any, int]]:
    """The data in pieces of `batch_size`, each with the number of its samples.

    Raises:
        ValueError: If the data do not fit the model's inputs or have no samples.
    """
    arrays = keras.tree.map_structure(np.asarray, data)
    flat = keras.tree.flatten(arrays)
    lengths = {len(array) if array.ndim else 0 for array in flat}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "Invalid value for argument `data`. Expected at least one sample, and as many for every input. "
            f"Received shapes: {[array.shape for array in flat]}"
        )
    specs = _input_specs(model)
    if specs is not None:
        _check_fit(model, flat, keras.tree.flatten(specs))
    length = lengths.pop()
    for start in range(0, length, batch_size):
        stop = min(start + batch_size, length)
        yield keras.tree.map_structure(lambda array, low=start, high=stop: array[low:high], arrays), stop - start


def _check_fit(model: keras.Model, arrays: list[np.ndarray], specs: list[Any]) -> None:
    def fits(array: np.ndarray, spec: Any) -> bool:
        return array.ndim == len(spec.shape) and all(
            wanted is None or size == wanted for size, wanted in zip(array.shape[1:], spec.shape[1:], strict=True)
        )

    if len(arrays) != len(specs) or not all(fits(array, spec) for array, spec in zip(arrays, specs, strict=True)):
        wanted = [("batch", *spec.shape[1:]) for spec in specs]
        raise ValueError(
            f"Invalid value for argument `data`. Expected {str(wanted).replace(chr(39), '')} for the inputs of "
            f"{model.name!r}. Received: {[array.shape for array in arrays]}"
        )


def _input_specs(model: keras.Model) -> Any:
    """Symbolic tensors in the structure of the model's inputs, None where nobody knows them."""
    inputs = getattr(model, "inputs", None)
    if inputs:  # a Functional model also knows their structure
        return getattr(model, "input", inputs[0] if len(inputs) == 1 else inputs)
    shapes = (model.get_build_config() or {}).get("input_shape")
    if not shapes:
        return None
    return keras.tree.map_shape_structure(lambda shape: keras.KerasTensor(shape, "float32"), shapes)
