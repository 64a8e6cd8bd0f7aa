"""What a file does with a `LayerGate` that Keras need not do: a block that is shut costs as little as can be.

An activation behind the block moves into its branches, where it is part of the addition, and where in an int8 file the
integers that leave the branch have its range.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_efficient.cost.observe import shadowed
from keras_efficient.layers import LayerGate

Tensor = Any


def layer_gates(model: Any) -> list[LayerGate]:
    """The layer gates of a network, each once."""
    return [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, LayerGate)]


@contextlib.contextmanager
def with_relu_inside(model: Any) -> Iterator[None]:
    """Inside, the ReLU layers that alone read what a layer gate returns do nothing, and the gate's branches end in one.

    What such a layer gave before is passed by as it is.
    """
    with contextlib.ExitStack() as stack:
        for gate in layer_gates(model):
            relu = _relu_behind(gate, model)
            if relu is not None:
                stack.enter_context(shadowed(gate, "leave", functools.partial(_rectified, _passes_by(gate))))
                stack.enter_context(shadowed(relu, "call", _nothing))
        yield


def _rectified(passes_by: bool, tensor: Tensor, is_open: bool) -> Tensor:
    return keras.ops.relu(tensor) if is_open or not passes_by else tensor


def _passes_by(gate: LayerGate) -> bool:
    """Whether what a shut gate passes by is never negative."""
    read = [tensor for node in gate._inbound_nodes for tensor in node.input_tensors]
    return gate.shortcut == "identity" and all(_is_relu(tensor._keras_history.operation) for tensor in read)


def _nothing(inputs: Tensor) -> Tensor:
    return inputs


def _relu_behind(gate: LayerGate, model: Any) -> keras.layers.Layer | None:
    """The one layer behind the gate, where it is a plain ReLU that reads nothing else."""
    readers = {id(node.operation): node.operation for node in gate._outbound_nodes}
    if len(readers) != 1:
        return None
    (relu,) = readers.values()
    read = [tensor for node in relu._inbound_nodes for tensor in node.input_tensors]
    if not _is_relu(relu) or any(tensor._keras_history.operation is not gate for tensor in read):
        return None
    networks = [part for part in model._flatten_layers() if isinstance(part, keras.Model)]
    given = {id(tensor) for part in networks for tensor in getattr(part, "outputs", None) or []}
    return None if any(id(tensor) in given for tensor in read) else relu


def _is_relu(layer: Any) -> bool:
    if isinstance(layer, keras.layers.ReLU):
        return layer.max_value is None and not layer.negative_slope and not layer.threshold
    return isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.relu


@contextlib.contextmanager
def wrapped_borders(
    model: Any,
    entering: Callable[[LayerGate, Tensor, int], Tensor],
    leaving: Callable[[LayerGate, Callable[..., Tensor], Tensor, bool], Tensor],
) -> Iterator[None]:
    """Inside, `entering(gate, tensor, border)` and `leaving(gate, leave, tensor, is_open)` replace `enter`, `leave`.

    `border` is one of `LayerGate.INPUT`, `SHORTCUT`, `SCALE` and `SCALED`.
    """
    with contextlib.ExitStack() as stack:
        for gate in layer_gates(model):
            stack.enter_context(shadowed(gate, "enter", functools.partial(entering, gate)))
            stack.enter_context(shadowed(gate, "leave", functools.partial(leaving, gate, gate.leave)))
        yield
