"""Checks of arguments that the policies share: each returns the value or raises one clear sentence."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np


def check_integer(name: str, value: Any, lowest: int) -> int:
    """`value` as an int of at least `lowest`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < lowest:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected an integer of at least {lowest}. Received: {value!r}"
        )
    return int(value)


def check_number(name: str, value: Any, lowest: float = -math.inf, highest: float = math.inf) -> float:
    """`value` as a finite float in `[lowest, highest]`."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not lowest <= value <= highest:
        between = "" if lowest == -math.inf else f" in [{lowest:g}, {highest:g}]"
        between = f" of at least {lowest:g}" if between and highest == math.inf else between
        raise ValueError(f"Invalid value for argument `{name}`. Expected a finite number{between}. Received: {value!r}")
    return float(value)


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """`value`, one of `choices`."""
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise ValueError(f"Invalid value for argument `{name}`. Expected one of {listed}. Received: {value!r}")
    return str(value)


def check_hidden_units(hidden_units: Any) -> tuple[int, ...]:
    """`hidden_units` as a tuple of at least one positive integer."""
    units = tuple(hidden_units) if isinstance(hidden_units, list | tuple) else ()
    if not units:
        raise ValueError(
            "Invalid value for argument `hidden_units`. Expected a list with the width of each hidden layer. "
            f"Received: {hidden_units!r}"
        )
    return tuple(check_integer("hidden_units", unit, 1) for unit in units)


def check_exit_index(exit_index: int, num_exits: int) -> None:
    """Raises unless `exit_index` is one of a network's exits."""
    if not 0 <= exit_index < num_exits:
        raise ValueError(
            f"Invalid value for argument `exit_index`. Expected an integer in [0, {num_exits}). Received: {exit_index}"
        )


def check_range(name: str, value: Any) -> tuple[float, float] | None:
    """`value` as two finite, positive floats, the first below the second; None stays None."""
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, list | tuple) else ()
    if len(pair) == 2:
        low, high = (check_number(name, number) for number in pair)
        if 0 < low < high:
            return low, high
    raise ValueError(
        f"Invalid value for argument `{name}`. Expected two positive numbers (least, greatest), or None. "
        f"Received: {value!r}"
    )


def checked_exits(exits: Sequence[int], num_exits: int) -> tuple[int, ...]:
    """The exits as a tuple of increasing indices that ends in the network's last; at least two."""
    try:
        chosen = tuple(operator.index(k) for k in exits)
    except TypeError:
        chosen = ()
    if len(chosen) < 2 or list(chosen) != sorted(set(chosen)) or chosen[0] < 0 or chosen[-1] != num_exits - 1:
        raise ValueError(
            f"Invalid value for argument `exits`. Expected at least two increasing integers that end in the last exit, "
            f"{num_exits - 1}. Received: {list(exits)}"
        )
    return chosen
