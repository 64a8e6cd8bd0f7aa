"""What is going on around a layer's `call`: really skipping, recording costs, or tracing for export.

Everything here is a context variable, so threads do not see each other's state, and outside every `with` block a layer
behaves as a plain Keras layer.
"""

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

Tensor = Any


@dataclasses.dataclass(frozen=True)
class Event:
    """The cost of one piece of a network in one forward pass.

    Attributes:
        name: What ran, an op's or a layer's name.
        dense: Multiply-adds per sample with every gate open.
        executed: Multiply-adds per sample really needed, a tensor of shape `[B]` or `[1]`.
        by_op: Whether an op with a kernel of its own did it; the kernels count those themselves.
    """

    name: str
    dense: float
    executed: Tensor
    by_op: bool = False


_skipping = contextvars.ContextVar("keras_efficient_skipping", default=False)
_events: contextvars.ContextVar[list[Event] | None] = contextvars.ContextVar("keras_efficient_events", default=None)
_mask: contextvars.ContextVar[Tensor] = contextvars.ContextVar("keras_efficient_mask", default=None)
_call_op: contextvars.ContextVar[Callable[..., Tensor] | None] = contextvars.ContextVar(
    "keras_efficient_call_op", default=None
)

_inlining = contextvars.ContextVar("keras_efficient_inlining", default=False)
_scale: contextvars.ContextVar[tuple[object, Tensor] | None] = contextvars.ContextVar(
    "keras_efficient_scale", default=None
)


@contextlib.contextmanager
def _value(variable: contextvars.ContextVar[Any], value: Any) -> Iterator[Any]:
    token = variable.set(value)
    try:
        yield value
    finally:
        variable.reset(token)


def skipping(active: bool = True) -> contextlib.AbstractContextManager[bool]:
    """Inside, what a gate or an exit shuts is not computed (`keras.ops.cond`); needs batches of one sample."""
    return _value(_skipping, active)


def is_skipping() -> bool:
    """Whether closed gates and passed exits must really not be computed."""
    return _skipping.get()


def recording() -> contextlib.AbstractContextManager[list[Event]]:
    """Inside, every op and every dynamic layer appends an `Event` to the list that this returns."""
    return _value(_events, [])


def is_recording() -> bool:
    """Whether `record` keeps what it is given."""
    return _events.get() is not None


def record(name: str, dense: float, executed: Tensor, by_op: bool = False) -> None:
    """Note that something ran. `executed` is `[B]` multiply-adds, before the masks of `executed_when`."""
    events = _events.get()
    if events is not None:
        mask = _mask.get()
        events.append(Event(name, float(dense), executed if mask is None else executed * mask, by_op))


def keep(events: list[Event]) -> None:
    """Hand events of an inner `recording()`, masked already, on to the surrounding one."""
    outer = _events.get()
    if outer is not None:
        outer.extend(events)


def executed_when(mask: Tensor) -> contextlib.AbstractContextManager[Tensor]:
    """Inside, only the samples where `mask` `[B]` is 1 count as executed. Nested masks multiply."""
    outer = _mask.get()
    return _value(_mask, mask if outer is None else outer * mask)


def execution_mask() -> Tensor:
    """The product of the surrounding `executed_when` masks, `[B]`, or None where nothing is masked."""
    return _mask.get()


def calling_ops_with(call: Callable[..., Tensor] | None) -> contextlib.AbstractContextManager[Any]:
    """Inside, `op(...)` becomes `call(op, tensors, attributes)`: how the exporter keeps ops whole while it traces."""
    return _value(_call_op, call)


def op_caller() -> Callable[..., Tensor] | None:
    """What stands in for the reference of an op right now, or None."""
    return _call_op.get()


def inlining() -> contextlib.AbstractContextManager[bool]:
    """Inside, ops become builtin ops for good (`ops="builtin"`): layers take what serves those best."""
    return _value(_inlining, True)


def is_inlining() -> bool:
    """Whether ops become builtin ops for good."""
    return _inlining.get()


def scaling(layer: object, scale: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Inside, `layer` multiplies what it returns by `scale` `[B, 1]`: where it scales by gates already, at no cost."""
    return _value(_scale, (layer, scale))


def scale_of(layer: object) -> Tensor:
    """What `layer` multiplies its output by, or None."""
    found = _scale.get()
    return found[1] if found is not None and found[0] is layer else None
