"""Which gates open for which inputs."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_efficient.cost.observe import wrapped_calls
from keras_efficient.layers import DynamicLayer
from keras_efficient.models import MultiExit

Array = NDArray[Any]
BATCH = 256


def gate_values(model: MultiExit, images: Array) -> dict[str, Array]:
    """The gates `[N, channels]` of every gated layer that hands them on, by the layer's name, everything computed."""
    found: dict[str, list[Array]] = {}

    def around(
        layer: keras.layers.Layer, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        outputs = method(*args, **kwargs)
        gate = (
            outputs[1] if isinstance(outputs, tuple) else layer.gate_values(kwargs.get("gate_inputs", args[0]), False)
        )
        found.setdefault(layer.name, []).append(keras.ops.convert_to_numpy(gate))
        return outputs

    gated = [layer for layer in model._flatten_layers() if isinstance(layer, DynamicLayer) and layer.gate is not None]
    with wrapped_calls(gated, around):
        for start in range(0, len(images), BATCH):
            model(keras.ops.convert_to_tensor(images[start : start + BATCH]), training=False)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def stage_of(model: MultiExit) -> dict[str, int]:
    """The stage, counted from 0, that each gated layer belongs to."""
    return {
        layer.name: number
        for number, stage in enumerate(model.stages)
        for layer in stage._flatten_layers()
        if isinstance(layer, DynamicLayer) and layer.gate is not None
    }


def open_shares(model: MultiExit, images: Array, exit_index: Array) -> dict[str, dict[str, float]]:
    """Per gated layer, over the inputs that reach it.

    Returns:
        By layer: `reached`, the share of inputs that get there; `open`, the mean share of open gates; `lowest` and
        `highest`, its 5th and 95th percentile over inputs; `opened` and `shut`, how many gates were met in each state.
    """
    stages = stage_of(model)
    report = {}
    for name, gates in gate_values(model, images).items():
        reached = exit_index >= stages[name]
        is_open = gates[reached] > 0
        shares = is_open.mean(axis=1) if reached.any() else np.zeros(1)
        report[name] = {
            "reached": float(reached.mean()),
            "open": float(shares.mean()),
            "lowest": float(np.percentile(shares, 5)),
            "highest": float(np.percentile(shares, 95)),
            "opened": int(is_open.sum()),
            "shut": int((~is_open).sum()),
        }
    return report
