"""Standing between a model's layers and their calls: how the exporter places fake-quant nodes."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_efficient.cost.observe import shadowed, sublayers

Layer = keras.layers.Layer
Replacement = Callable[[Layer, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def units(model: Layer) -> list[Layer]:
    """The layers of a model that compute something themselves.

    Those without layers inside, and those that say `calls_op = True` (they call an op of ours; what is inside them does not count).
    """
    found: list[Layer] = []
    for layer in sublayers(model, recursive=False) or [model]:
        inside = sublayers(layer, recursive=False)
        if getattr(layer, "calls_op", False) or not inside:
            found.append(layer)
        else:
            for child in inside:
                found += units(child)
    unique: dict[int, Layer] = {id(layer): layer for layer in found}
    return list(unique.values())


@contextlib.contextmanager
def replaced_calls(model: Layer, call: Replacement) -> Iterator[None]:
    """Inside, each unit of the model runs `call(layer, original, args, kwargs)` instead of its `call`, named `original`."""
    with contextlib.ExitStack() as stack:
        for layer in units(model):
            original = layer.call

            @functools.wraps(original)
            def replaced(*args: Any, layer: Layer = layer, original: Callable[..., Any] = original, **kwargs: Any) -> Any:
                return call(layer, original, args, kwargs)

            stack.enter_context(shadowed(layer, "call", replaced))
        yield
