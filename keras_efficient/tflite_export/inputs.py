"""Arrays for a signature, checked against what the file says of its inputs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def checked_inputs(x: Any, inputs: Mapping[str, Any], details: Mapping[str, Mapping[str, Any]]) -> dict[str, Array]:
    """Contiguous arrays of the right dtype by input name.

    Args:
        x: An array for the one input that is not in `inputs`, or None.
        inputs: Arrays `[N, ...]` by name.
        details: `shape_signature` and `dtype` of each input, as a signature runner gives them.

    Raises:
        ValueError: If an input is missing, unknown, or of the wrong shape or dtype.
    """
    if x is not None:
        free = [name for name in details if name not in inputs]
        if len(free) != 1:
            raise ValueError(
                f"Invalid inputs. Expected arrays by name for {sorted(details)}. Received: one array for {free}"
            )
        inputs = {free[0]: x, **inputs}
    if set(inputs) != set(details):
        raise ValueError(f"Invalid inputs. Expected {sorted(details)}. Received: {sorted(inputs)}")
    arrays = {name: _checked(name, inputs[name], detail) for name, detail in details.items()}
    if len({len(array) for array in arrays.values()}) != 1:
        shapes = {name: array.shape for name, array in arrays.items()}
        raise ValueError(f"Invalid inputs. Expected one batch size. Received: {shapes}")
    return arrays


def _checked(name: str, value: Any, detail: Mapping[str, Any]) -> Array:
    array = np.asarray(value)
    wanted = [int(size) for size in detail["shape_signature"]]
    if array.ndim != len(wanted) or list(array.shape[1:]) != wanted[1:] or len(array) == 0:
        raise ValueError(f"Invalid shape for input `{name}`. Expected [N, {wanted[1:]}]. Received: {array.shape}")
    numbers = array.dtype.kind in "fiub"
    narrows = np.issubdtype(detail["dtype"], np.integer) and not np.can_cast(array.dtype, detail["dtype"])
    if not numbers or narrows:
        raise ValueError(
            f"Invalid dtype for input `{name}`. Expected {detail['dtype'].__name__}. Received: {array.dtype}"
        )
    return np.ascontiguousarray(array.astype(detail["dtype"], copy=False))
