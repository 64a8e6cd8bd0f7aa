"""Recording what Keras's own layers cost, beside the ops of this package, which record themselves."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_efficient.cost.calls import Call
from keras_efficient.cost.formulas import own_macs
from keras_efficient.cost.observe import Layer, shadowed, sublayers, wrapped_calls
from keras_efficient.cost.recurrent import counts_what_is_inside
from keras_efficient.cost.storage import bytes_of
from keras_efficient.ops import context
from keras_efficient.ops.context import Event


@contextlib.contextmanager
def counting(model: Layer) -> Iterator[list[Event]]:
    """Inside, running `model` appends the cost of everything in it to the list that this returns.

    Builtin layers count with the formulas of `cost.formulas`, times the masks of `ops.executed_when` around them.
    Layers that call ops of this package, or `ops.record` themselves, count what those report and nothing else. A layer
    that is called twice counts twice.
    """
    with context.recording() as events, watching(model):
        yield events


@dataclasses.dataclass
class Seen:
    """What one layer did.

    Attributes:
        path: Names from the model down to the layer at its first call, joined by `/`.
        calls: How often it was called.
        events: What it cost, layers inside left out.
        output_bytes: Bytes per sample that it returned, all calls together.
        uncounted: Whether its cost cannot be known.
    """

    path: str
    calls: int = 0
    events: list[Event] = dataclasses.field(default_factory=list)
    output_bytes: float = 0.0
    uncounted: bool = False


@contextlib.contextmanager
def watching(model: Layer) -> Iterator[dict[Layer, Seen]]:
    """As `counting`, inside an `ops.recording()` of the caller's: what each layer did, in the order of first calls."""
    watch = _Watch()
    everything = [model, *sublayers(model)]
    with contextlib.ExitStack() as stack:
        for layer in everything:
            if isinstance(layer, keras.layers.RNN) and not counts_what_is_inside(layer):
                # Tensors recorded in a backend's loop cannot leave it, so unknown cells run step by step.
                stack.enter_context(shadowed(layer, "unroll", True))
        stack.enter_context(wrapped_calls(everything, watch.around))
        yield watch.seen


class _Watch:
    def __init__(self) -> None:
        self.seen: dict[Layer, Seen] = {}
        self._running: list[Layer] = []
        self._settled: dict[int, Event] = {}  # events that belong to a layer already, by id
        self._batch: int | None = None

    def around(self, layer: Layer, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if any(counts_what_is_inside(outer) for outer in self._running):
            return method(*args, **kwargs)
        if not self._running:
            self._batch = _batch_size(args, kwargs)
        self._running.append(layer)
        try:
            with context.recording() as events:
                outputs = method(*args, **kwargs)
                self._settle(layer, events, args, kwargs, outputs)
        finally:
            self._running.pop()
        context.keep(events)
        return outputs

    def _settle(self, layer: Layer, events: list[Event], args: tuple[Any, ...], kwargs: dict[str, Any], y: Any) -> None:
        path = "/".join(outer.name for outer in self._running[1:]) or layer.name
        seen = self.seen.setdefault(layer, Seen(path))
        seen.calls += 1
        seen.output_bytes += _bytes_per_sample(y)
        own = [event for event in events if id(event) not in self._settled]
        if not own:
            macs = own_macs(Call.of(layer, args, kwargs, y))
            seen.uncounted = macs is None
            if macs:
                macs *= self._times_folded(args, kwargs)
                context.record(layer.name, macs, ops.full((1,), macs))
                own = events[-1:]
        seen.events += own
        self._settled.update((id(event), event) for event in own)

    def _times_folded(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
        """How often per sample a layer runs that got, say, the time steps folded into its batch."""
        batch = _batch_size(args, kwargs)
        return batch / self._batch if batch and self._batch else 1.0


def _batch_size(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int | None:
    shapes = [tuple(getattr(tensor, "shape", ())) for tensor in keras.tree.flatten((args, kwargs))]
    return next((shape[0] for shape in shapes if shape), None)


def _bytes_per_sample(tensors: Any) -> float:
    total = 0.0
    for tensor in keras.tree.flatten(tensors):
        shape = tuple(getattr(tensor, "shape", ()))
        if shape and None not in shape[1:]:
            total += bytes_of(shape[1:], tensor.dtype)
    return total
