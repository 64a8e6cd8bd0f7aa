"""`GuidedCell`: one recurrent network for what is seen, one for where to look, that meet only in the glimpse."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_efficient.layers.glimpse_cell import GlimpseCell, Look, Recurrent
from keras_efficient.layers.glimpse_sensor import (
    as_pixels,
    check_count,
    image_size,
    inside_image,
    left_in_float,
    pooled,
)

Tensor = Any
Shape = Sequence[int | None]


@keras.saving.register_keras_serializable(package="keras_efficient")
class GuidedCell(GlimpseCell):
    """One step of guided attention: the classifier's core does not decide where to look, a locator does.

        g_t   = glimpse network of rho(x, l_t) and sg(l_t)                       as in `GlimpseCell`
        hC_t  = classifier core of g_t and hC_{t-1}                              learns from labels
        hL_t  = locator core of [sg(g_t), l_t] and hL_{t-1}                      learns from where looking helped
        mu_t  = tanh(a W_2 relu(W_1 hL_t))

    In `GlimpseCell` one state must remember for the class and plan the next look; here nothing is shared but the
    glimpse. The locator starts from a **context**, unless `context_size` is None:

        hL_0 = relu(W_c thumbnail(x));   l_0 = tanh(a W_2 relu(W_1 hL_0))

    so that the first look is not blind. The thumbnail is made of `(2 context_size)^2` pixels on a regular grid,
    whatever the image's size, averaged two by two; the classifier never sees it.

    As a cell of `keras.layers.RNN`, which asks for states before it has seen an image, it starts without context at the
    centre.

    Args:
        size, num_scales, scale_factor, units, core, glimpse_units, location_units, sigma, location_gain, seed: As for
            `GlimpseCell`.
        locator_units: Width of the locator's core.
        context_size: Height and width of the thumbnail, or None for none.
        context_units: Width of a hidden layer between thumbnail and state.
        **kwargs: Arguments of `keras.layers.Layer`.

    Reference: in the manner of Dai et al., "Recurrent Networks for Guided Multi-Attention Classification" (GARN, KDD
    2020), whose text was not at hand; the context is that of Ba, Mnih and Kavukcuoglu, "Multiple Object Recognition
    with Visual Attention", ICLR 2015.
    """

    def __init__(
        self,
        size: int = 12,
        num_scales: int = 2,
        scale_factor: int = 2,
        units: int = 256,
        core: str = "simple",
        glimpse_units: int = 128,
        location_units: int = 128,
        sigma: float = 0.2,
        location_gain: float = 0.2,
        seed: int | None = None,
        locator_units: int = 128,
        context_size: int | None = 24,
        context_units: int = 128,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            size,
            num_scales,
            scale_factor,
            units,
            core,
            glimpse_units,
            location_units,
            sigma,
            location_gain,
            seed,
            **kwargs,
        )
        self.locator_units = check_count("locator_units", locator_units)
        self.context_size = None if context_size is None else check_count("context_size", context_size)
        self.context_units = check_count("context_units", context_units)
        own = {"dtype": self.dtype_policy}
        self.locator = Recurrent(locator_units, core, name="locator", **own)
        self.context_layers = (
            [
                keras.layers.Dense(width, activation="relu", name=name, **own)
                for name, width in (("context", context_units), ("context_state", locator_units))
            ]
            if context_size
            else []
        )

    @property
    def state_names(self) -> list[str]:
        """Names of the states, in order."""
        locator = [f"locator_{name}" for name in self.recurrent.state_names]
        return [*self.recurrent.state_names, *locator, "location"]

    @property
    def state_size(self) -> list[int]:
        """Widths of the states, in order."""
        each = len(self.recurrent.state_names)
        return [*([self.units] * each), *([self.locator_units] * each), 2]

    @property
    def policy_width(self) -> int:
        """Width of what the location network reads."""
        return self.locator_units

    def build(self, images_shape: Shape, *_: Any) -> None:
        super().build(images_shape)
        self.locator.build((None, self.units + 2))
        if self.context_size:
            width = self.context_size**2 * int(images_shape[-1] or 0)
            for layer in self.context_layers:
                layer.build((None, width))
                width = layer.units

    def start(self, images: Tensor, samples: int = 1, training: bool | None = None) -> Look:
        states = super().start(images, samples).states
        if not self.context_size:
            return Look(None, states)
        context = self.context_features(images)
        if samples > 1:
            context = ops.repeat(context, samples, axis=0)
        states[-1], *of_policy = self.next_location(context, training)
        states[len(self.recurrent.state_names)] = context
        return Look(None, states, context, *of_policy)

    def context_features(self, images: Tensor) -> Tensor:
        """The locator's first state `[B, locator_units]`."""
        features = self.thumbnail(images)
        features = ops.reshape(features, (-1, math.prod(features.shape[1:])))
        for layer in self.context_layers:
            features = layer(features)
        return features

    def thumbnail(self, images: Tensor) -> Tensor:
        """`[B, context_size, context_size, C]`, from pixels on a regular grid."""
        assert self.context_size is not None
        points, channels = 2 * self.context_size, self.sensor.channels
        rows, columns = (
            np.floor((np.arange(points) + 0.5) * length / points).astype("int32")
            for length in image_size(images.shape, channels)
        )
        if len(images.shape) == 3:
            columns = (columns[:, None] * channels + np.arange(channels, dtype="int32")).ravel()
        grid = as_pixels(ops.take(ops.take(images, rows, axis=1), columns, axis=2), channels)
        return left_in_float(pooled(self.sensor.as_float(grid), 2))

    def look(self, images: Tensor, states: Sequence[Tensor], training: bool | None = None) -> Look:
        location = ops.cast(inside_image(states[-1]), self.compute_dtype)
        each = len(self.recurrent.state_names)
        glimpse = self.glimpse_features(images, location)
        hidden, remembered = self.recurrent(glimpse, states[:each])
        read = ops.concatenate([ops.stop_gradient(glimpse), left_in_float(location)], axis=-1)
        features, locating = self.locator(read, states[each:-1])
        location, *of_policy = self.next_location(features, training)
        return Look(hidden, [*remembered, *locating, location], features, *of_policy)

    def get_config(self) -> dict[str, Any]:
        names = "locator_units context_size context_units"
        return {**super().get_config(), **{name: getattr(self, name) for name in names.split()}}
