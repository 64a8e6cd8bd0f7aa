"""How open the gates of a network are, and whether that depends on the input at all."""

import contextlib
import dataclasses
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from keras_efficient.cost.observe import paths, shadowed
from keras_efficient.layers.dynamic import DynamicLayer, dynamic_layers
from keras_efficient.ops import context


@dataclasses.dataclass(frozen=True)
class GateStatistics:
    """The gates of one layer over a set of inputs.

    Attributes:
        name: Path of the layer in the model.
        gates: Number of gates.
        reached: Share of the inputs that reach the layer, in [0, 1]; the others were turned away by a gate around it.
        open_rate: Mean share of the gates that are open, over the inputs that reach the layer; NaN where none does.
        deviation: Standard deviation of that share over those inputs.
        constant: Share of the gates that are open for all or for none of those inputs. Where it is 1, the layer is
            pruned, not dynamic.
        scale: Mean value of the open gates; NaN where none is open.
        rates: For each gate, the share of the inputs that reach the layer for which it is open.
        values: For each gate, its mean value over the inputs for which it is open; NaN where there is none.
    """

    name: str
    gates: int
    reached: float
    open_rate: float
    deviation: float
    constant: float
    scale: float
    rates: tuple[float, ...]
    values: tuple[float, ...]


def gate_statistics(model: keras.Model, x: ArrayLike, batch_size: int = 128) -> list[GateStatistics]:
    """Open rates of all gates of a model at inference, layer by layer in the order of the model.

    Args:
        model: Built model of one input with gated layers.
        x: `[N, ...]` inputs.
        batch_size: Inputs at a time.

    Raises:
        ValueError: If the model has no gates, or there are no inputs.

    >>> for layer in gate_statistics(model, x_val):
    ...     print(f"{layer.name}: {layer.open_rate:.0%} open, +- {layer.deviation:.0%}")
    """
    layers = [layer for layer in dynamic_layers(model) if layer.gate is not None]
    if not layers:
        raise ValueError(
            "Invalid value for argument `model`. Expected a model with gated layers. "
            f"Received: '{model.name}' without any"
        )
    inputs = np.asarray(x)
    if len(inputs) == 0:
        raise ValueError("Invalid value for argument `x`. Expected at least one input. Received: none")
    seen: dict[int, list[tuple[NDArray[Any], NDArray[Any]]]] = {id(layer): [] for layer in layers}

    def watch(layer: DynamicLayer) -> Any:
        inner = layer.gate_values

        def gate_values(shown: Any, training: bool | None) -> tuple[Any, Any]:
            gate, opened = inner(shown, training)
            mask = context.execution_mask()
            reached = np.ones(len(gate), bool) if mask is None else ops.convert_to_numpy(mask) > 0
            seen[id(layer)].append((ops.convert_to_numpy(gate), reached))
            return gate, opened

        return gate_values

    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(shadowed(layer, "gate_values", watch(layer)))
        for start in range(0, len(inputs), batch_size):
            model(ops.convert_to_tensor(inputs[start : start + batch_size]), training=False)
    names = {id(layer): path for layer, path in paths(model).items()}
    return [_summary(names.get(id(layer)) or layer.name, seen[id(layer)]) for layer in layers]


def _summary(name: str, parts: list[tuple[NDArray[Any], NDArray[Any]]]) -> GateStatistics:
    everything = np.concatenate([gate for gate, _ in parts])
    reached = np.concatenate([mask for _, mask in parts])
    gates = everything[reached]
    is_open = gates > 0
    if not len(gates):
        nan, each = float("nan"), everything.shape[1]
        return GateStatistics(name, each, 0.0, nan, nan, nan, nan, (nan,) * each, (nan,) * each)
    shares = is_open.mean(axis=1)
    rates = is_open.mean(axis=0)
    counts = is_open.sum(axis=0)
    values = np.where(counts > 0, (gates * is_open).sum(axis=0) / np.maximum(counts, 1), np.nan)
    return GateStatistics(
        name=name,
        gates=gates.shape[1],
        reached=float(reached.mean()),
        open_rate=float(shares.mean()),
        deviation=float(shares.std()),
        constant=float(((rates == 0) | (rates == 1)).mean()),
        scale=float(gates[is_open].mean()) if is_open.any() else float("nan"),
        rates=tuple(map(float, rates)),
        values=tuple(map(float, values)),
    )
