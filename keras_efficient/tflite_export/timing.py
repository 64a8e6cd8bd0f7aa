"""Microseconds on machines that do other things, too."""

import time
from collections.abc import Callable

try:
    import resource
except ImportError:  # not a Unix
    resource = None  # type: ignore[assignment]

ATTEMPTS = 20


def interruptions() -> int:
    """How often this process has lost its processor to another one; always 0 where the system does not say."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource is not None else 0


def microseconds(run: Callable[[], object]) -> float:
    """Time of one `run` that no other program interrupted, or of the last of `ATTEMPTS`."""
    took = 0.0
    for _ in range(ATTEMPTS):
        before = interruptions()
        start = time.perf_counter_ns()
        run()
        took = (time.perf_counter_ns() - start) / 1e3
        if interruptions() == before:
            break
    return took
