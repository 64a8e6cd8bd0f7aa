"""One call of a layer, as the formulas see it: shapes and arguments."""

import dataclasses
import inspect
import math
from collections.abc import Sequence
from typing import Any

import keras

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Call:
    """A layer with the shapes that went in and came out.

    Attributes:
        layer: The Keras layer.
        arguments: What `call` was given, by name.
        inputs: Shapes of the tensors among the arguments, in the order of the signature, without the batch.
        outputs: Shapes of the tensors it returned, without the batch.
    """

    layer: Any
    arguments: dict[str, Any]
    inputs: list[Shape]
    outputs: list[Shape]

    @classmethod
    def of(cls, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> "Call":
        """The record of `layer.call(*args, **kwargs)`, which returned `outputs`.

        Raises:
            ValueError: If a dimension behind the batch is not static.
        """
        bound = inspect.signature(type(layer).call).bind(layer, *args, **kwargs).arguments
        arguments = {name: value for name, value in bound.items() if value is not layer}
        return cls(layer, arguments, _shapes(layer, arguments), _shapes(layer, outputs))

    def shape_of(self, argument: str) -> Shape | None:
        """Shape of one tensor argument without the batch, None where it was not given."""
        tensor = self.arguments.get(argument)
        return None if tensor is None else tuple(tensor.shape)[1:]


def spatial(layer: Any, shape: Shape) -> Shape:
    """The spatial part of an image's shape `[*spatial, channels]`, or of `[channels, *spatial]`."""
    return shape[1:] if layer.data_format == "channels_first" else shape[:-1]


def channels(layer: Any, shape: Shape) -> int:
    """The channels of an image's shape."""
    return shape[0] if layer.data_format == "channels_first" else shape[-1]


def positions(shape: Sequence[int]) -> int:
    """How many vectors a tensor of shape `[..., features]` holds."""
    return math.prod(shape[:-1])


def _shapes(layer: Any, tensors: Any) -> list[Shape]:
    values = list(tensors.values()) if isinstance(tensors, dict) else tensors
    shapes = [tuple(tensor.shape)[1:] for tensor in keras.tree.flatten(values) if hasattr(tensor, "shape")]
    if any(size is None for shape in shapes for size in shape):
        raise ValueError(
            f"The cost of layer `{layer.name}` needs static dimensions behind the batch. Received shapes: {shapes}"
        )
    return shapes
