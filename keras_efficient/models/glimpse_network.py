"""A network that sees an image glimpse by glimpse: how it runs, stops early by a policy, and what it costs."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_efficient import cost
from keras_efficient.cost.inputs import zero_inputs
from keras_efficient.layers.glimpse_cell import GlimpseCell, Look
from keras_efficient.layers.glimpse_sensor import check_count, check_images
from keras_efficient.models import glimpse_steps
from keras_efficient.models.exit_routing import ExitRouting
from keras_efficient.ops import context

Tensor = Any
IMAGE_DTYPES = ("float32", "uint8")
IMAGE_LAYOUTS = ("pixels", "rows")


class GlimpseNetwork(ExitRouting):
    """Base of `RecurrentAttention` and `GuidedAttention`: a cell, run `num_glimpses` times, and a classifier.

    Each glimpse is an exit in the sense of `MultiExit`, so `predict_exits`, `exit_data`, policies and the exporter work
    alike; what is carried from glimpse to glimpse are the image and the cell's states.

    Args:
        num_classes: Number of logits.
        cell: A `GlimpseCell`.
        num_glimpses: Number of glimpses `T`, at least 2.
        dropout: Share of the classifier's inputs dropped in training.
        image_dtype: `"float32"`, or `"uint8"` for images of whole numbers in [0, 255]; what an exported file takes.
        image_layout: What an exported file takes: `"pixels"` for images `[1, H, W, C]`, `"rows"` for the same bytes as
            `[1, H, W C]`, of which patches are cut several times as fast. In Keras both are taken, always.
        policy: Exit policy, or None.
        **kwargs: Arguments of `keras.Model`.
    """

    def __init__(
        self,
        num_classes: int,
        cell: GlimpseCell,
        num_glimpses: int = 6,
        dropout: float = 0.0,
        image_dtype: str = "float32",
        image_layout: str = "pixels",
        policy: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(cell, GlimpseCell):
            raise ValueError(f"Invalid value for argument `cell`. Expected a `GlimpseCell`. Received: {cell!r}")
        if image_dtype not in IMAGE_DTYPES:
            raise ValueError(
                f"Invalid value for argument `image_dtype`. Expected one of {IMAGE_DTYPES}. Received: {image_dtype!r}"
            )
        if image_layout not in IMAGE_LAYOUTS:
            raise ValueError(
                "Invalid value for argument `image_layout`. Expected one of "
                f"{IMAGE_LAYOUTS}. Received: {image_layout!r}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(
                f"Invalid value for argument `dropout`. Expected a number in [0, 1). Received: {dropout!r}"
            )
        self.num_classes = check_count("num_classes", num_classes, 2)
        self.num_glimpses = check_count("num_glimpses", num_glimpses, 2)
        self.cell = cell
        self.dropout = dropout
        self.image_dtype = image_dtype
        self.image_layout = image_layout
        self.drop = keras.layers.Dropout(dropout, name="dropout")
        self.classifier = keras.layers.Dense(num_classes, name="classifier")
        self._place_policy(policy)
        self._image_shape: tuple[int, ...] | None = None

    def build(self, input_shape: Any) -> None:
        check_images(input_shape)
        self._image_shape = tuple(int(size) for size in input_shape[1:])
        if not self.cell.built:
            self.cell.build(tuple(input_shape))
        self.classifier.build((None, self.cell.units))

    @property
    def num_exits(self) -> int:
        """Number of glimpses, behind each of which the network can stop."""
        return self.num_glimpses

    @property
    def exit_names(self) -> list[str]:
        """`["glimpse_1", ..., "glimpse_T"]`, the keys of the outputs."""
        return [f"glimpse_{k + 1}" for k in range(self.num_glimpses)]

    @property
    def summary_units(self) -> int:
        """0: policies read the logits."""
        return 0

    @property
    def inputs(self) -> list[Any]:
        """The symbolic image, once the network is built."""
        if self._image_shape is None:
            return []
        height, width, channels = self._image_shape
        shape = (height, width * channels) if self.image_layout == "rows" else (height, width, channels)
        return [keras.KerasTensor((None, *shape), self.image_dtype, name="image")]

    @property
    def input(self) -> Any:
        """The symbolic image."""
        return self.inputs[0]

    def call(
        self,
        images: Tensor,
        training: bool | None = None,
        trade_off: Tensor | None = None,
        max_exit: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Logits after each glimpse, `{"glimpse_1": [B, n], ...}`; inside `ops.skipping()` what a file computes.

        Args:
            images: `[B, H, W, C]`, or in rows `[B, H, W C]`.
            training: As in Keras. A subclass adds what learning to look needs.
            trade_off: Float32 `[B]`, for a policy that takes it.
            max_exit: Int32 `[B]`, index of the last glimpse allowed, where exits are really taken.

        Returns:
            Inside `ops.skipping()`, with one image: `{"output": [1, n], "locations": [1, T, 2]}`, or, with a policy,
            `{"output": [1, n], "exit_index": int32 [1]}`, and nothing behind the glimpse at which it stops is computed.
        """
        if context.is_skipping() and not training:
            if self.policy is None:
                return self._last_output(images)
            if images.shape[0] not in (None, 1):
                raise ValueError(
                    "Invalid value for argument `images`. Expected a batch of one image to stop early. "
                    f"Received: {images.shape[0]}"
                )
            return self._left_early({"features": images}, 0, trade_off, max_exit)
        return dict(zip(self.exit_names, self._all_logits(images, False, trade_off), strict=True))

    def run_stage(
        self, k: int, carry: dict[str, Tensor], training: bool | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Glimpse `k` (0 for the first): what the next one takes, and the logits `[B, n]` after this one.

        Args:
            k: Index of the glimpse.
            carry: `{"features": images}` for the first one, and from there on what the one before gave, which also
                holds the cell's states by name.
            training: As in Keras.
        """
        carry, found = self._look(k, carry, training)
        return carry, self.classify(found, training)

    def _look(self, k: int, carry: dict[str, Tensor], training: bool | None) -> tuple[dict[str, Tensor], Look]:
        images = carry["features"]
        if k == 0:
            states = self.cell.start(images, training=training).states
        else:
            states = [carry[name] for name in self.cell.state_names]
        found = self.cell.look(images, states, training)
        return {"features": images, **dict(zip(self.cell.state_names, found.states, strict=True))}, found

    def pass_stage(self, k: int, carry: dict[str, Tensor]) -> dict[str, Tensor]:
        """Glimpse `k` without the classifier; gives what the next one takes. See `run_stage`."""
        return self._look(k, carry, False)[0]

    def classify(self, found: Look, training: bool | None = None) -> Tensor:
        """Logits `[B, n]` after a step of the cell."""
        return self.classifier(self.drop(found.output, training=training))

    def exit_costs(self, x: Any = None) -> NDArray[np.float64]:
        """`[T]` MACs per image up to and including each glimpse, the same for every image."""
        carry = {"features": ops.convert_to_tensor(zero_inputs(self, 1))}
        totals = []
        for k in range(self.num_exits):
            with cost.counting(self) as events:
                carry, _ = self.run_stage(k, carry, False)
            totals.append(sum(event.dense for event in events))
        return np.cumsum(totals)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        policy: keras.layers.Layer | None = None,
        trade_off: Any = None,
        max_exit: Any = None,
    ) -> Any:
        """Logits `[N, n]`: after the last glimpse, or the one at which the policy stops.

        Arguments as for `MultiExit.predict`; `predict_all` gives those after every glimpse, by name.
        """
        if policy is None and self.policy is None:
            return self.predict_all(x, batch_size, verbose, steps, callbacks)[self.exit_names[-1]]
        return super().predict(x, batch_size, verbose, steps, callbacks, policy, trade_off, max_exit)

    def predict_path(
        self, x: Any, batch_size: int | None = None, verbose: Any = "auto"
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Where the network looks on images `[N, H, W, C]`, or in rows `[N, H, W C]`.

        Returns:
            Logits `[N, T, n]` after each glimpse, and locations `[N, T, 2]`, each (y, x).
        """
        if not self.built:
            self.build((None, *np.shape(x)[1:]))
        made = self.__dict__.get("_path_model")
        if made is None:
            made = (_Path(self),)  # in a tuple, where neither Keras's tracking nor its saving looks
            object.__setattr__(self, "_path_model", made)
        if isinstance(x, np.ndarray):  # one compiled function for both layouts
            x = x.reshape(len(x), *(self._image_shape or ()))
        found = made[0].predict(x, batch_size=batch_size, verbose=verbose)
        return found["logits"], found["locations"]

    def step_model(self) -> keras.Model:
        """One glimpse as a model with explicit states; see `glimpse_steps.step_model`."""
        return glimpse_steps.step_model(self)

    def start_model(self) -> keras.Model:
        """The states to start with on an image, as a model; see `glimpse_steps.start_model`."""
        return glimpse_steps.start_model(self)

    def step_data(self, images: Any, batch_size: int = 256) -> dict[str, NDArray[Any]]:
        """What `step_model` is given while looking at `images`; see `glimpse_steps.step_data`."""
        return glimpse_steps.step_data(self, images, batch_size)

    def path(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Logits `[B, n]` and locations `[B, 2]` of each glimpse, in inference."""
        states = self.cell.start(images).states
        logits, locations = [], []
        for _ in range(self.num_glimpses):
            locations.append(states[-1])
            found = self.cell.look(images, states)
            states = found.states
            logits.append(self.classify(found))
        return logits, locations

    def _last_output(self, images: Tensor) -> dict[str, Tensor]:
        logits, locations = self.path(images)
        stacked = ops.stack([ops.cast(location, "float32") for location in locations], axis=1)
        return {"output": ops.cast(logits[-1], "float32"), "locations": stacked}

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": serialize(self.dtype_policy),
            "num_classes": self.num_classes,
            "cell": serialize(self.cell),
            "num_glimpses": self.num_glimpses,
            "dropout": self.dropout,
            "image_dtype": self.image_dtype,
            "image_layout": self.image_layout,
            "policy": None if self.policy is None else serialize(self.policy),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "GlimpseNetwork":
        config = dict(config)
        for key in ("cell", "policy", "dtype"):
            config[key] = keras.saving.deserialize_keras_object(config.get(key), custom_objects=custom_objects)
        return cls(**config)


class _Path(keras.Model):
    """Logits and locations of every glimpse, as `predict` compiles it."""

    def __init__(self, network: GlimpseNetwork) -> None:
        super().__init__(name=f"path_of_{network.name}")
        self.network = network
        self.built = True

    def call(self, images: Tensor) -> dict[str, Tensor]:
        logits, locations = self.network.path(images)
        return {"logits": ops.stack(logits, axis=1), "locations": ops.stack(locations, axis=1)}
