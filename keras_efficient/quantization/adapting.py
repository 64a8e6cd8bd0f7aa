"""One step of ALQ on a layer: from its weights to the mathematics and back."""

from typing import Any

from keras import ops

from keras_efficient import bases
from keras_efficient.layers.multi_bit_layer import MultiBitLayer

Tensor = Any


def adapt(layer: MultiBitLayer, gradient: Tensor, mode: str, learning_rate: Tensor, step: Any = bases.step) -> None:
    """Changes an adaptive layer, given the gradient of the loss at its kernel.

    Args:
        layer: Has the state that `bases.GroupState` describes as its weights; only its live bases are computed.
        gradient: Of the shape of the kernel.
        mode: One of `bases.MODES`.
        learning_rate: Scalar.
        step: `bases.step`, or that compiled.
    """
    count = layer.live_bases
    seen = layer.gradients_seen.value + 1.0
    seen_by_scales = layer.scale_gradients_seen.value + 1.0  # which a latent step does not touch
    if mode == "basis":
        seen_by_scales = seen  # the moments of the scales come from those of the weights
    state = bases.GroupState(
        codes=layer.codes.value,
        scales=layer.scales.value[:, :count],
        weights=layer.grouping.rows(layer.kernel.value),
        latent=layer.latent.value,
        weight_moments=tuple(part.value for part in layer.weight_moments),
        scale_moments=tuple(part.value[:, :count] for part in layer.scale_moments),
    )
    gradient = ops.cast(layer.grouping.rows(gradient), "float32")
    counted = seen if mode in ("basis", "latent") else seen_by_scales
    state = step(state, gradient, mode, ops.cast(learning_rate, "float32"), counted)
    layer.gradients_seen.assign(seen)
    if mode != "latent":
        layer.scale_gradients_seen.assign(seen_by_scales)
    for variable, value in zip(layer.weight_moments, state.weight_moments, strict=True):
        variable.assign(value)
    for variable, value in zip(layer.scale_moments, state.scale_moments, strict=True):
        variable.assign(_padded(value, layer.max_bits))
    if mode != "moments":
        layer.scales.assign(_padded(state.scales, layer.max_bits))
        layer.kernel.assign(layer.grouping.kernel(state.weights))
    if mode in ("basis", "latent"):
        layer.codes.assign(state.codes)
    if mode == "latent":
        layer.latent.assign(state.latent)


def _padded(values: Tensor, count: int) -> Tensor:
    return ops.pad(values, ((0, 0), (0, count - int(values.shape[1]))))
