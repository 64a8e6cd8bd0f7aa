"""A glimpse network one step at a time, its state in the caller's hands: for hosts that stream frames."""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from keras_efficient.models.glimpse_network import GlimpseNetwork


def step_model(network: "GlimpseNetwork") -> keras.Model:
    """One glimpse as a model of its own, which shares the network's layers.

    It takes `image` `[B, H, W, C]` (`[B, H, W C]` where the network's `image_layout` is `"rows"`) and the states by
    name, such as `hidden` `[B, units]` and `location` `[B, 2]`, and gives `output` `[B, n]`, the logits, and the next
    states under the same names: what comes out goes in again, with the same image or the next frame. A network without
    context starts with zeros, one with context with what `start_model` gives.

    >>> tflite_export.export(network.step_model(), "step.tflite", signature="step")
    """
    _check_built(network)
    cell = network.cell
    image = _image(network)
    states = [keras.Input((width,), name=name) for name, width in zip(cell.state_names, cell.state_size, strict=True)]
    features, following = cell(image, states)
    outputs = {"output": network.classifier(features), **dict(zip(cell.state_names, following, strict=True))}
    inputs = {"image": image, **dict(zip(cell.state_names, states, strict=True))}
    return keras.Model(inputs, outputs, name=f"{network.name}_step")


def start_model(network: "GlimpseNetwork") -> keras.Model:
    """The states to start with on an `image`, by name, as a model that shares the network's layers."""
    _check_built(network)
    image = _image(network)
    states = _Start(network.cell, name="start")(image)
    return keras.Model(image, states, name=f"{network.name}_start")


def step_data(network: "GlimpseNetwork", images: Any, batch_size: int = 256) -> dict[str, NDArray[Any]]:
    """What `step_model` is given while the network looks at `images` `[N, H, W, C]`: `N T` rows by input name.

    For `representative_data` of `tflite_export.export`.
    """
    names = ["image", *network.cell.state_names]
    shape = (-1, *network.inputs[0].shape[1:])
    rows: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for first in range(0, len(images), batch_size):
        batch = keras.ops.convert_to_tensor(np.reshape(images[first : first + batch_size], shape))
        states = network.cell.start(batch).states
        for _ in range(network.num_glimpses):
            for name, tensor in zip(names, [batch, *states], strict=True):
                rows[name].append(np.asarray(keras.ops.convert_to_numpy(tensor)))
            states = network.cell.look(batch, states).states
    return {name: np.concatenate(arrays) for name, arrays in rows.items()}


def _image(network: "GlimpseNetwork") -> Any:
    shape = network.inputs[0].shape[1:]
    return keras.Input(shape, dtype=network.image_dtype, name="image")


def _check_built(network: "GlimpseNetwork") -> None:
    if not network.built:
        raise ValueError(
            f"Invalid value for argument `network`. Expected a built network. Received: {network.name!r}, not built yet"
        )


class _Start(keras.layers.Layer):
    """A cell's states to start with, by name."""

    def __init__(self, cell: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cell = cell
        self.built = True

    def call(self, images: Any) -> dict[str, Any]:
        states = self.cell.start(images).states
        named = dict(zip(self.cell.state_names, states, strict=True))
        return {name: keras.ops.cast(state, "float32") for name, state in named.items()}
