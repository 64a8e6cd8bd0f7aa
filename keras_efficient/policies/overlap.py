"""Data that decide when to leave must not have trained the network: finds rows that are in both."""

import hashlib
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


def row_hashes(x: Any) -> set[bytes]:
    """A hash of each row of an array `[N, ...]`, or of arrays in a structure, row by row.

    Numbers are compared as float32, whatever their dtype.
    """
    arrays = [_comparable(ops.convert_to_numpy(leaf)) for leaf in keras.tree.flatten(x)]
    rows = zip(*(array.reshape(len(array), -1) for array in arrays), strict=True)
    return {hashlib.blake2b(b"".join(part.tobytes() for part in row), digest_size=8).digest() for row in rows}


def check_disjoint(x: Any, trained_on: Any = None, trained_hashes: set[bytes] | None = None) -> None:
    """Raises unless no row of `x` is among those trained on.

    Only equal rows are found, so both must have been prepared in the same way; augmented copies pass.

    Args:
        x: Held-out inputs, an array `[N, ...]` or a structure of such arrays.
        trained_on: Inputs of the training, in the same structure, or None.
        trained_hashes: `row_hashes` of such inputs, or None.

    Raises:
        ValueError: With the number of rows in both.
    """
    known = set(trained_hashes or ())
    if trained_on is not None:
        known |= row_hashes(trained_on)
    if not known:
        return
    held_out = row_hashes(x)
    common = len(held_out & known)
    if common:
        raise ValueError(
            "Invalid value for argument `x`. Expected held-out inputs, which the network was not trained on. "
            f"Received: {common} of {len(held_out)} different rows from the training data"
        )


def _comparable(array: NDArray[Any]) -> NDArray[Any]:
    if np.issubdtype(array.dtype, np.number) or array.dtype == bool:
        array = array.astype(np.float32) + np.float32(0)  # -0 becomes 0
    return np.ascontiguousarray(array)
