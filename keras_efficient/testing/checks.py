"""Running a list of checks and saying which one failed, and why."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np


class CheckFailed(AssertionError):  # noqa: N818 (reads as what happened)
    """A check did not hold; the message names the subject, the check and what was found."""


def run_checks(subject: str, checks: Sequence[tuple[str, Callable[[], None]]]) -> list[str]:
    """Runs named checks in order and returns their names.

    Raises:
        CheckFailed: At the first one that does not hold.
    """
    for name, check in checks:
        try:
            check()
        except CheckFailed as failure:
            raise CheckFailed(f"{subject} failed the check '{name}': {failure}") from failure
        except Exception as error:
            raise CheckFailed(f"{subject} failed the check '{name}' with {type(error).__name__}: {error}") from error
    return [name for name, _ in checks]


def values_of(tensor: Any) -> np.ndarray:
    """A copy of a tensor's or variable's values that later steps of training leave alone."""
    return np.copy(keras.ops.convert_to_numpy(tensor))


def require(condition: bool, message: str) -> None:
    """Raises `CheckFailed(message)` unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


def require_close(actual: Any, expected: Any, what: str, tolerance: float = 1e-4) -> None:
    """Requires equal shapes and a largest difference of `tolerance`, relative to the largest expected value above 1."""
    a, b = (
        np.asarray(keras.ops.convert_to_numpy(actual), "float64"),
        np.asarray(keras.ops.convert_to_numpy(expected), "float64"),
    )
    require(a.shape == b.shape, f"{what}: expected shape {b.shape}, got {a.shape}")
    bound = tolerance * max(1.0, float(np.abs(b).max(initial=0.0)))
    gap = float(np.abs(a - b).max(initial=0.0))
    require(gap <= bound, f"{what}: expected a difference of at most {bound:.1e}, got {gap:.3e}")


def require_value_error(call: Callable[[], Any], what: str) -> None:
    """Requires that the call raises a `ValueError`."""
    try:
        call()
    except ValueError:
        return
    raise CheckFailed(f"{what}: expected a ValueError, and nothing was raised")
