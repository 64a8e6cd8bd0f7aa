"""What a request brings with it: its trade-off, and the last exit that it may take."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def checked_trade_off(policy: Any, trade_off: ArrayLike | None, inputs: int) -> NDArray[np.float32] | None:
    """Float32 `[inputs]`, or None where none is given."""
    if trade_off is None:
        return None
    if not getattr(policy, "takes_trade_off", False):
        raise ValueError(
            "Invalid value for argument `trade_off`. Expected None, because the policy was made for one trade-off. "
            f"Received: {trade_off!r}"
        )
    array = np.asarray(trade_off)
    number = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    if array.shape not in ((), (inputs,)) or not number or not (np.isfinite(array) & (array >= 0)).all():
        raise ValueError(
            f"Invalid value for argument `trade_off`. Expected a finite number of at least 0, or {inputs}, one per "
            f"input. Received: {_shown(array)}"
        )
    return np.broadcast_to(array, (inputs,)).astype(np.float32)


def checked_cap(max_exit: ArrayLike | None, inputs: int, exits: int) -> NDArray[np.int64]:
    """`[inputs]` integers in `[0, exits)`; `exits - 1` where there is no cap."""
    array = np.asarray(exits - 1 if max_exit is None else max_exit)
    valid = array.shape in ((), (inputs,)) and np.issubdtype(array.dtype, np.integer)
    if not valid or (array < 0).any() or (array >= exits).any():
        raise ValueError(
            f"Invalid value for argument `max_exit`. Expected an integer in [0, {exits}), or {inputs} of them, one per "
            f"input. Received: {_shown(array)}"
        )
    return np.broadcast_to(array, (inputs,)).astype(np.int64)


def cap_for_deadline(costs: ArrayLike, deadline: float) -> int:
    """The last exit that can be reached within a deadline, for `max_exit`.

    Args:
        costs: `[K]` cost up to and including each exit, increasing, in any unit.
        deadline: In the same unit.

    Raises:
        ValueError: If not even the first exit fits, with what it costs.
    """
    array = np.asarray(costs, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all() or (np.diff(array) <= 0).any():
        raise ValueError(
            f"Invalid value for argument `costs`. Expected increasing numbers, one per exit. Received: {_shown(array)}"
        )
    affordable = int(np.count_nonzero(array <= deadline))
    if affordable == 0:
        raise ValueError(
            f"Invalid value for argument `deadline`. Expected at least {array[0]:.6g}, the cost of the first exit. "
            f"Received: {deadline}"
        )
    return affordable - 1


def _shown(array: NDArray[Any]) -> str:
    return f"{array.tolist()}" if array.size <= 16 else f"shape {array.shape}, dtype {array.dtype}"
