"""Watching the layers of a model while it runs, without changing the model."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

Layer: TypeAlias = Any  # Keras ships no types
Hook = Callable[[Layer, tuple[Any, ...], dict[str, Any], Any], None]
Around = Callable[[Layer, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

# A layer in int8 or int4 (`layer.quantize`) runs `quantized_call` instead of `call`.
_METHODS = ("call", "quantized_call")


@contextlib.contextmanager
def observed_calls(model: Layer, hook: Hook) -> Iterator[None]:
    """Inside, `hook(layer, args, kwargs, outputs)` is called after every call of a leaf layer of `model`.

    A leaf is a layer without layers inside; the tensors come as the layer got and returned them. The layers' `call` is
    shadowed by an attribute of the instance and uncovered again at the end, so compiled functions of the model must not
    be traced inside. Calls from other threads pass by unseen. Blocks may be nested.

    Args:
        model: A model or layer; whatever it contains at this moment is watched.
        hook: Called after each call; not called for one that raises.
    """

    def around(layer: Layer, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        outputs = method(*args, **kwargs)
        hook(layer, args, kwargs, outputs)
        return outputs

    leaves = [layer for layer in (model, *sublayers(model)) if not sublayers(layer)]
    with wrapped_calls(leaves, around):
        yield


@contextlib.contextmanager
def wrapped_calls(layers: list[Layer], around: Around) -> Iterator[None]:
    """Inside, `around(layer, method, args, kwargs)` runs in place of `layer.call` and returns its outputs."""
    thread = threading.get_ident()

    def wrap(layer: Layer, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != thread:
                return method(*args, **kwargs)
            return around(layer, method, args, kwargs)

        return call

    with contextlib.ExitStack() as stack:
        for layer in layers:
            for name in _METHODS:
                method = getattr(layer, name, None)
                if method is not None:
                    stack.enter_context(shadowed(layer, name, wrap(layer, method)))
        yield


@contextlib.contextmanager
def shadowed(instance: object, name: str, value: Any) -> Iterator[None]:
    """Inside, `instance.name` is `value`; Keras's bookkeeping of attributes does not hear of it."""
    own = vars(instance)
    had, old = name in own, own.get(name)
    object.__setattr__(instance, name, value)
    try:
        yield
    finally:
        if had:
            object.__setattr__(instance, name, old)
        else:
            object.__delattr__(instance, name)


def sublayers(layer: Layer) -> list[Layer]:
    """The layers inside `layer` at any depth, each once, `layer` itself left out."""
    return list(layer._flatten_layers(include_self=False))


def paths(layer: Layer, above: str = "") -> dict[Layer, str]:
    """The names that lead to each layer inside `layer`, joined by `/`, the first way to it where there are several."""
    found: dict[Layer, str] = {}
    for child in layer._flatten_layers(include_self=False, recursive=False):
        found.setdefault(child, above + child.name)
        for inner, path in paths(child, found[child] + "/").items():
            found.setdefault(inner, path)
    return found
