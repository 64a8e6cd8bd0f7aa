"""`GlimpseCell`: look at a location, remember, decide where to look next: one step of recurrent attention."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_efficient.layers.glimpse_sensor import GlimpseSensor, check_count, check_images, inside_image, left_in_float
from keras_efficient.ops import context

Tensor = Any
Shape = Sequence[int | None]
CORES = ("simple", "lstm")


class Look(NamedTuple):
    """What one step of a cell gave, or its start, which has no output.

    Attributes:
        output: `[B, units]`, what the classifier reads.
        states: The next states, in the order of `state_names`.
        policy_features: `[B, U]`, what the location network read.
        mean: `[B, 2]`, mean of the next location's distribution.
        raw_mean: `[B, 2]`, the same before the hyperbolic tangent.
        log_probability: `[B]`, log density of the location drawn, in training; None where nothing was drawn. Its
            gradient reaches the mean alone.
    """

    output: Tensor | None
    states: list[Tensor]
    policy_features: Tensor | None = None
    mean: Tensor | None = None
    raw_mean: Tensor | None = None
    log_probability: Tensor | None = None


@keras.saving.register_keras_serializable(package="keras_efficient")
class GlimpseCell(keras.layers.Layer):
    """One step of recurrent attention (RAM): a cell for `keras.layers.RNN` and the heart of `RecurrentAttention`.

        rho_t = sensor(x, l_t)                                                   glimpse
        g_t   = relu(W [relu(W_g rho_t), relu(W_l sg(l_t))])                     glimpse network
        h_t   = relu(W_h [h_{t-1}, g_t]), or an LSTM                             core
        mu_t  = tanh(a W_2 relu(W_1 sg(h_t)))                                    location network
        l_{t+1} = clip(mu_t + sigma * noise, -1, 1)    in training;   mu_t    otherwise

    where `sg` stops the gradient: the location network learns by reinforcement alone, and the rest of the cell does not
    hear of it. `a` keeps the location network slow: its gradient is noisy, an optimiser like Adam makes steps of one
    size of any gradient, and where the hyperbolic tangent saturates nothing more is learned.

    Its states are `hidden` `[B, units]`, `memory` `[B, units]` with an LSTM core, and `location` `[B, 2]`, where the
    next glimpse will be. In `keras.layers.RNN` it takes a sequence of images, `[B, T, H, W, C]`: frames of a video, or
    one image again and again.

    >>> video = keras.Input((None, 96, 96, 1))
    >>> features = keras.layers.RNN(GlimpseCell(12, num_scales=3))(video)

    Args:
        size, num_scales, scale_factor: Of the `GlimpseSensor`.
        units: Width of glimpse features and core.
        core: `"simple"` (ReLU) or `"lstm"`.
        glimpse_units: Widths of what the cell makes of the pixels and of the location before it joins them.
        location_units: Width of the location network's hidden layer.
        sigma: Standard deviation of the locations tried in training, in units of half an image.
        location_gain: `a`.
        seed: Of the noise.
        **kwargs: Arguments of `keras.layers.Layer`.

    Call arguments:
        images: `[B, H, W, C]`, what is looked at in this step.
        states: List of states.
        training: Whether locations are drawn.

    Returns:
        `h_t` `[B, units]`, and the new states.

    Reference: Mnih, Heess, Graves and Kavukcuoglu, "Recurrent Models of Visual Attention", NeurIPS 2014. A hidden layer
    in the location network is not in the paper.
    """

    def __init__(
        self,
        size: int = 8,
        num_scales: int = 1,
        scale_factor: int = 2,
        units: int = 256,
        core: str = "simple",
        glimpse_units: int = 128,
        location_units: int = 128,
        sigma: float = 0.2,
        location_gain: float = 0.2,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if core not in CORES:
            raise ValueError(f"Invalid value for argument `core`. Expected 'simple' or 'lstm'. Received: {core!r}")
        for name, value in (("sigma", sigma), ("location_gain", location_gain)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(
                    f"Invalid value for argument `{name}`. Expected a finite number above 0. Received: {value!r}"
                )
        self.size, self.num_scales, self.scale_factor = size, num_scales, scale_factor
        self.units = check_count("units", units)
        self.core = core
        self.glimpse_units = check_count("glimpse_units", glimpse_units)
        self.location_units = check_count("location_units", location_units)
        self.sigma = float(sigma)
        self.location_gain = float(location_gain)
        self.seed = seed
        self.noise = keras.random.SeedGenerator(seed)
        own = {"dtype": self.dtype_policy}
        self.sensor = GlimpseSensor(size, num_scales, scale_factor, name="sensor", **own)
        self.what = keras.layers.Dense(glimpse_units, activation="relu", name="what", **own)
        self.where = keras.layers.Dense(glimpse_units, activation="relu", name="where", **own)
        self.joined = keras.layers.Dense(units, activation="relu", name="joined", **own)
        self.recurrent = Recurrent(units, core, name="core", **own)
        self.location_hidden = keras.layers.Dense(location_units, activation="relu", name="location_hidden", **own)
        self.location_mean = _FloatDense(2, name="location_mean", **own)

    @property
    def state_names(self) -> list[str]:
        """Names of the states, in order."""
        return [*self.recurrent.state_names, "location"]

    @property
    def state_size(self) -> list[int]:
        """Widths of the states, in order."""
        return [*([self.units] * len(self.recurrent.state_names)), 2]

    @property
    def output_size(self) -> int:
        """Width of what the cell returns."""
        return self.units

    @property
    def policy_width(self) -> int:
        """Width of what the location network reads."""
        return self.units

    def build(self, images_shape: Shape, *_: Any) -> None:
        check_images(images_shape)
        self._build_glimpse_network(images_shape)
        self.recurrent.build((None, self.units))
        self._build_location_network(self.policy_width)

    def _build_glimpse_network(self, images_shape: Shape) -> None:
        channels = int(images_shape[-1] or 0)
        self.sensor.build(images_shape, (None, 2))
        self.what.build((None, self.size**2 * self.num_scales * channels))
        self.where.build((None, 2))
        self.joined.build((None, 2 * self.glimpse_units))

    def _build_location_network(self, width: int) -> None:
        self.location_hidden.build((None, width))
        self.location_mean.build((None, self.location_units))

    def get_initial_state(self, batch_size: Any = None) -> list[Tensor]:
        """Nothing remembered, looking at the centre."""
        return [ops.zeros((batch_size, width), dtype=self.compute_dtype) for width in self.state_size]

    def start(self, images: Tensor, samples: int = 1, training: bool | None = None) -> Look:
        """States `[B * samples, ...]` to start with on images `[B, H, W, C]`: those of `get_initial_state`."""
        batch = images.shape[0] or ops.shape(images)[0]
        return Look(None, self.get_initial_state(batch * samples))

    def look(self, images: Tensor, states: Sequence[Tensor], training: bool | None = None) -> Look:
        """One step, with what learning needs beside what `call` returns. Arguments as for `call`."""
        *remembered, location = states
        glimpse = self.glimpse_features(images, location)
        hidden, remembered = self.recurrent(glimpse, remembered)
        features = ops.stop_gradient(hidden)
        location, *of_policy = self.next_location(features, training)
        return Look(hidden, [*remembered, location], features, *of_policy)

    def call(
        self, images: Tensor, states: Sequence[Tensor], training: bool | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        found = self.look(images, states, training)
        return found.output, found.states

    def glimpse_features(self, images: Tensor, location: Tensor) -> Tensor:
        """`g_t` `[B, units]`: what is seen at `location`, and where that is."""
        location = ops.cast(inside_image(location), self.compute_dtype)
        seen = self.sensor(images, location)
        seen = ops.reshape(seen, (-1, math.prod(seen.shape[1:])))
        return self.joined(ops.concatenate([self.what(seen), self.where(left_in_float(location))], axis=-1))

    def next_location(self, features: Tensor, training: bool | None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The next location, `mu_t`, `mu_t` before the tangent, and in training the log density of the location."""
        raw = self.location_gain * self.location_mean(self.location_hidden(features))
        mean = _tanh(raw)
        if not training:
            return mean, mean, raw, None
        mean = ops.cast(mean, "float32")
        drawn = ops.stop_gradient(mean + self.sigma * keras.random.normal(ops.shape(mean), seed=self.noise))
        log_probability = gaussian_log_density(drawn, mean, self.sigma)
        return ops.cast(ops.clip(drawn, -1.0, 1.0), self.compute_dtype), mean, raw, log_probability

    def compute_output_shape(self, images_shape: Shape, states_shape: Any) -> Any:
        batch = states_shape[0][0]
        return (batch, self.units), [(batch, width) for width in self.state_size]

    def get_config(self) -> dict[str, Any]:
        names = "size num_scales scale_factor units core glimpse_units location_units sigma location_gain seed"
        return {**super().get_config(), **{name: getattr(self, name) for name in names.split()}}


def _tanh(x: Tensor) -> Tensor:
    """`tanh(x)`; written out for files, since the converter gives what TANH returns 8 bits whoever reads it."""
    return 1.0 - 2.0 / (1.0 + ops.exp(2.0 * x)) if context.is_skipping() else ops.tanh(x)


def gaussian_log_density(drawn: Tensor, mean: Tensor, sigma: float) -> Tensor:
    """`sum log N(drawn; mean, sigma^2)` over the last axis, of what is not clipped, without a gradient into `drawn`."""
    standard = (ops.stop_gradient(drawn) - mean) / sigma
    constant = 0.5 * math.log(2 * math.pi) + math.log(sigma)
    return ops.sum(-0.5 * ops.square(standard) - constant, axis=-1)


class Recurrent(keras.layers.Layer):
    """The core: ReLU or LSTM, written with one matrix product, which quantises to 8 bits as a plain `Dense` does.

        h_t = relu(W [h_{t-1}, x_t] + b)                                             "simple"
        i, f, o, c' = W [h_{t-1}, x_t] + b                                           "lstm"
        c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(c');   h_t = sigmoid(o) tanh(c_t)

    The forget gate's bias starts at 1.
    """

    def __init__(self, units: int, core: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units, self.core = units, core
        lstm = core == "lstm"
        self.product = keras.layers.Dense(
            4 * units if lstm else units,
            activation=None if lstm else "relu",
            name="product",
            dtype=self.dtype_policy,
        )

    @property
    def state_names(self) -> list[str]:
        """Names of the states, `hidden` first."""
        return ["hidden", "memory"] if self.core == "lstm" else ["hidden"]

    def build(self, input_shape: Shape) -> None:
        self.product.build((None, self.units + int(input_shape[-1] or 0)))
        if self.core == "lstm":
            bias = ops.concatenate([ops.ones(self.units) if k == 1 else ops.zeros(self.units) for k in range(4)])
            self.product.bias.assign(bias)

    def call(self, inputs: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        product = self.product(ops.concatenate([states[0], inputs], axis=-1))
        if self.core == "simple":
            return product, [product]
        enter, forget, leave, new = ops.split(product, 4, axis=-1)
        memory = ops.sigmoid(forget) * states[1] + ops.sigmoid(enter) * ops.tanh(new)
        hidden = ops.sigmoid(leave) * ops.tanh(memory)
        return hidden, [hidden, memory]

    def compute_output_shape(self, input_shape: Shape, states_shape: Any) -> Any:
        return (input_shape[0], self.units), [(input_shape[0], self.units) for _ in self.state_names]


class _FloatDense(keras.layers.Dense):
    """A `Dense` that computes in float32 in int8 files, too."""

    computes_in_float = True
