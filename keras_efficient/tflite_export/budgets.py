"""What a caller may ask of one request: a trade-off, a cap on the exits, a deadline. Read from a file's metadata."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Budget:
    """The budgets of `N` requests.

    Attributes:
        trade_off: `[N]` float32, accuracy that one is ready to give for the cost of one full network; None where the
            file's policy takes none.
        max_exit: `[N]` int32, index of the last exit allowed.
    """

    trade_off: NDArray[np.float32] | None
    max_exit: NDArray[np.int32]


def budget(
    entries: Mapping[str, Any],
    count: int,
    *,
    trade_off: Any = None,
    max_exit: Any = None,
    deadline_macs: Any = None,
    deadline_us: Any = None,
) -> Budget:
    """The budgets of `count` requests, what is missing taken from the file's defaults.

    Args:
        entries: The file's metadata: `exits`, and `trade_off` where the policy takes one.
        count: Number of requests.
        trade_off: One number or `[count]` numbers; the file's default where None.
        max_exit: One index or `[count]`; the last exit where None.
        deadline_macs: Multiply-adds that no request may exceed, one number or `[count]`.
        deadline_us: Microseconds that no request may exceed; needs latencies in the metadata.

    Raises:
        ValueError: One sentence, for a number that is not finite or out of range, a trade-off for a policy that takes
            none, or a deadline that not even the first exit meets.
    """
    exits = entries.get("exits", [])
    if not exits:
        raise ValueError(
            "Invalid budget. Expected a file with exits (and, but for staged files, one exported with "
            "`budget_inputs=True`). Received: a file without them"
        )
    last = len(exits) - 1
    caps = _whole("max_exit", last if max_exit is None else max_exit, count, last)
    for name, unit, deadline in (
        ("deadline_macs", "macs", deadline_macs),
        ("deadline_us", "microseconds", deadline_us),
    ):
        if deadline is not None:
            caps = np.minimum(caps, _within(exits, name, unit, _numbers(name, deadline, count)))
    return Budget(_trade_offs(entries, trade_off, count), caps.astype("int32"))


def _trade_offs(entries: Mapping[str, Any], trade_off: Any, count: int) -> NDArray[np.float32] | None:
    known = entries.get("trade_off")
    if known is None:
        if trade_off is not None:
            raise ValueError(
                "Invalid value for argument `trade_off`. Expected None, since the policy in this file takes no "
                f"trade-off. Received: {trade_off!r}"
            )
        return None
    values = _numbers("trade_off", known["default"] if trade_off is None else trade_off, count)
    if (values < 0).any():
        raise ValueError(
            f"Invalid value for argument `trade_off`. Expected numbers of at least 0. Received: {trade_off!r}"
        )
    return values.astype("float32")


def _within(exits: Any, name: str, unit: str, deadline: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the last exit that each deadline allows."""
    if any(unit not in entry for entry in exits):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a file whose exits have {unit!r} in the metadata. "
            f"Received: exits with {sorted(exits[0])}"
        )
    costs = np.array([entry[unit] for entry in exits], "float64")
    allowed = np.searchsorted(costs, deadline, side="right") - 1
    if (allowed < 0).any():
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected at least {costs[0]:g}, what the first exit takes. "
            f"Received: {deadline.min():g}"
        )
    return allowed


def _numbers(name: str, value: Any, count: int) -> NDArray[np.float64]:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" or array.ndim > 1 or array.size not in (1, count) or not np.isfinite(array).all():
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected one finite number, or one for each of the {count} inputs. "
            f"Received: {value!r}"
        )
    return np.broadcast_to(array.astype("float64").reshape(-1), (count,))


def _whole(name: str, value: Any, count: int, last: int) -> NDArray[np.int64]:
    array = np.asarray(value)
    fits = array.dtype.kind in "iu" and array.ndim <= 1 and array.size in (1, count)
    if not fits or array.min() < 0 or array.max() > last:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected one integer in [0, {last}], or one for each of the {count} "
            f"inputs. Received: {value!r}"
        )
    return np.broadcast_to(array.astype("int64").reshape(-1), (count,))
