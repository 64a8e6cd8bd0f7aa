"""One step of ALQ on the groups of a layer, given the gradient at the quantised weights.

| mode | what moves | source |
|---|---|---|
| `basis` | signs to the codeword nearest to the model's minimiser, then scales by weighted least squares | step 2a |
| `coordinate` | scales, by AMSGrad on their own gradients | step 2b |
| `moments` | nothing but the moments, for pruning to rank scales by | step 1 |
| `latent` | latent float weights by AMSGrad; signs and scales follow them (straight through) | step 3 |
"""

from typing import Any, NamedTuple

from keras import ops

from keras_efficient.bases.codes import assigned, fitted, flipped_positive, reconstructed, signs
from keras_efficient.bases.moments import amsgrad, updated

Tensor = Any
Moments = tuple[Tensor, Tensor, Tensor]
MODES = ("basis", "coordinate", "moments", "latent")


class GroupState(NamedTuple):
    """What training holds of R groups of n weights with up to I bases.

    Attributes:
        codes: `[R, n]` uint8.
        scales: `[R, I]`; 0 where a basis is not live.
        weights: `[R, n]`, what codes and scales stand for.
        latent: `[R, n]` float weights behind them, used by the mode `latent` alone.
        weight_moments: Of the gradients of the weights, three of `[R, n]`.
        scale_moments: Of the gradients of the scales, three of `[R, I]`.
    """

    codes: Tensor
    scales: Tensor
    weights: Tensor
    latent: Tensor
    weight_moments: Moments
    scale_moments: Moments


def step(state: GroupState, gradient: Tensor, mode: str, learning_rate: Tensor, steps: Tensor) -> GroupState:
    """The state one gradient `[R, n]` later.

    Args:
        state: The state.
        gradient: Of the loss at the quantised weights.
        mode: One of `MODES`.
        learning_rate: Scalar.
        steps: Scalar float, how many gradients the moments that move something have seen, this one included: those of
            the weights in the modes `basis` and `latent`, those of the scales in the others.
    """
    if not int(state.scales.shape[1]):
        return state  # no basis at all
    moments = updated(state.weight_moments, gradient)
    state = state._replace(weight_moments=moments)
    live = ops.cast(ops.not_equal(state.scales, 0), "float32")
    if mode in ("basis", "latent"):
        slope, curvature = amsgrad(moments, learning_rate, steps)
        start = state.latent if mode == "latent" else state.weights
        target = start - slope / curvature
        codes = assigned(target, state.scales)
        codes, scales = flipped_positive(codes, fitted(codes, live, target, curvature))
        state = state._replace(codes=codes, scales=scales, weights=reconstructed(codes, scales))
        if mode == "latent":
            return state._replace(latent=target)
        return state._replace(scale_moments=_projected(moments, codes, live))
    basis = signs(state.codes, int(state.scales.shape[1]))
    slopes = live * ops.sum(basis * ops.expand_dims(gradient, 1), axis=-1)
    scale_moments = updated(state.scale_moments, slopes)
    state = state._replace(scale_moments=scale_moments)
    if mode == "moments":
        return state
    slope, curvature = amsgrad(scale_moments, learning_rate, steps)
    scales = state.scales - live * slope / curvature
    return state._replace(scales=scales, weights=reconstructed(state.codes, scales))


def _projected(moments: Moments, codes: Tensor, live: Tensor) -> Moments:
    """Moments of the scales from those of the weights: `B m`, and sums over the group of v and v_max."""
    mean, square, largest = moments
    basis = signs(codes, int(live.shape[1]))
    projected = ops.sum(basis * ops.expand_dims(mean, 1), axis=-1)
    return (
        live * projected,
        live * ops.sum(square, axis=1, keepdims=True),
        live * ops.sum(largest, axis=1, keepdims=True),
    )


def importance(scales: Tensor, moments: Moments, learning_rate: Tensor, steps: Tensor) -> Tensor:
    """The modelled increase of the loss when one scale is set to 0: `-p a + h a^2 / 2`, `[R, I]`."""
    slope, curvature = amsgrad(moments, learning_rate, steps)
    return -slope * scales + 0.5 * curvature * ops.square(scales)
