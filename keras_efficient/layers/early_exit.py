"""`EarlyExit`: a place where a network can stop, and the cheap label unit that answers there."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

Tensor = Any
Shape = Sequence[int | None]
POOLS = ("average", "average_max")


@keras.saving.register_keras_serializable(package="keras_efficient")
class EarlyExit(keras.layers.Layer):
    """Marks an exit: returns its input unchanged, and holds the label unit of an EPNet-style branch.

        v = mean_hw(F)                   # [B, C]; with pool="average_max" concatenated with max_hw(F), [B, 2 C]
        z = W v + b                      # [B, num_classes], logits

    and, with a running summary of `S` numbers that each exit hands on to the next one,

        r_k = relu(A_k [v_k, r_{k-1}] + a_k);   r_0 = 0        # [B, S]
        z_k = W_k [v_k, r_k] + b_k

    A model with such layers is trained and used as `models.MultiExit.from_model(model)`, which calls the branches;
    alone, the layer does nothing and its label unit learns nothing.

    >>> model.add(keras.layers.Conv2D(16, 3, activation="relu"))
    >>> model.add(EarlyExit(10))
    >>> model.add(keras.layers.Conv2D(32, 3, activation="relu"))

    Args:
        num_classes: Number of logits.
        pool: `"average"` or `"average_max"`; features without positions are taken as they are.
        hidden_units: Width of a hidden ReLU layer before the logits, or None.
        dropout: Share of pooled features dropped in training.
        gradient_scale: Factor on the gradient that the branch sends into the network; `1 / (exits from here on)` gives
            the gradient equilibrium of Li et al., "Improved Techniques for Training Adaptive Deep Networks" (ICCV
            2019).
        summary_units: Width `S` of the running summary, or None. All exits of a network have the same.
        label_layer: A layer from pooled features to logits, such as `MultiBitDense(num_classes)`, instead of a `Dense`.

    Call arguments:
        inputs: `[B, ..., C]`.

    Returns:
        `inputs`. The logits `[B, num_classes]` come from `branch(features)`.

    Reference: Dai, Kong and Guo, "EPNet: Learning to Exit with Flexible Multi-Branch Network", CIKM 2020.
    """

    def __init__(
        self,
        num_classes: int,
        pool: str = "average",
        hidden_units: int | None = None,
        dropout: float = 0.0,
        gradient_scale: float = 1.0,
        label_layer: keras.layers.Layer | None = None,
        summary_units: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        widths = {"num_classes": num_classes, "hidden_units": hidden_units, "summary_units": summary_units}
        for name, value in widths.items():
            if value is None and name != "num_classes":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"Invalid value for argument `{name}`. Expected a positive integer. Received: {value!r}"
                )
        if pool not in POOLS:
            raise ValueError(
                f"Invalid value for argument `pool`. Expected 'average' or 'average_max'. Received: {pool!r}"
            )
        if not 0 <= dropout < 1:
            raise ValueError(
                f"Invalid value for argument `dropout`. Expected a number in [0, 1). Received: {dropout!r}"
            )
        if not gradient_scale >= 0:
            raise ValueError(
                "Invalid value for argument `gradient_scale`. Expected a number of at least 0. "
                f"Received: {gradient_scale!r}"
            )
        if label_layer is not None and not isinstance(label_layer, keras.layers.Layer):
            raise ValueError(
                f"Invalid value for argument `label_layer`. Expected a Keras layer. Received: {label_layer!r}"
            )
        self.num_classes = num_classes
        self.pool = pool
        self.hidden_units = hidden_units
        self.dropout = dropout
        self.gradient_scale = gradient_scale
        self.summary_units = summary_units
        self.label_layer = label_layer
        kwargs = {"dtype": self.dtype_policy}
        self.summary_unit = (
            keras.layers.Dense(summary_units, activation="relu", name=f"{self.name}_summary", **kwargs)
            if summary_units
            else None
        )
        self.unit = [
            *([keras.layers.Dropout(dropout, **kwargs)] if dropout else []),
            *(
                [keras.layers.Dense(hidden_units, activation="relu", name=f"{self.name}_hidden", **kwargs)]
                if hidden_units
                else []
            ),
            label_layer or keras.layers.Dense(num_classes, name=f"{self.name}_label", **kwargs),
        ]

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise ValueError(
                "Invalid shape for argument `inputs`. Expected [batch, ..., channels] with known channels. "
                f"Received: {tuple(input_shape)}"
            )
        width = int(input_shape[-1])
        if self.pool == "average_max" and len(input_shape) > 2:
            width *= 2
        if self.summary_unit is not None:
            assert self.summary_units is not None
            width += self.summary_units
            if not self.summary_unit.built:
                self.summary_unit.build((None, width))
        shape: tuple[int | None, ...] = (None, width)
        for layer in self.unit:
            if not layer.built:
                layer.build(shape)
            shape = tuple(layer.compute_output_shape(shape))
        if shape != (None, self.num_classes):
            raise ValueError(
                f"Invalid value for argument `label_layer`. Expected outputs of shape [batch, {self.num_classes}]. "
                f"Received: {shape}"
            )

    def call(self, inputs: Tensor) -> Tensor:
        return inputs

    def branch(self, features: Tensor, training: bool | None = None, summary: Tensor | None = None) -> Tensor:
        """The logits `[B, num_classes]` of this exit for features `[B, ..., C]`; see `branch_and_summary`."""
        return self.branch_and_summary(features, summary, training)[0]

    def branch_and_summary(
        self, features: Tensor, summary: Tensor | None = None, training: bool | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The logits of this exit, and the summary that the next one gets.

        Args:
            features: `[B, ..., C]`.
            summary: `[B, S]` from the exit before, None at the first (zeros).
            training: As in Keras.

        Returns:
            Logits `[B, num_classes]`, and the summary `[B, S]`, None where the exit has none.
        """
        if training and self.gradient_scale != 1.0:
            features = scaled_gradient(features, self.gradient_scale)
        axes = tuple(range(1, len(features.shape) - 1))
        if axes and self.pool == "average_max":
            features = ops.concatenate([ops.mean(features, axis=axes), ops.max(features, axis=axes)], axis=-1)
        elif axes:
            features = ops.mean(features, axis=axes)
        if self.summary_unit is None:
            summary = None
        else:
            before = (
                ops.pad(features, [[0, 0], [0, self.summary_units]])
                if summary is None
                else ops.concatenate([features, ops.cast(summary, features.dtype)], axis=-1)
            )
            summary = self.summary_unit(before)
            features = ops.concatenate([features, summary], axis=-1)
        for layer in self.unit:
            features = (
                layer(features, training=training) if isinstance(layer, keras.layers.Dropout) else layer(features)
            )
        return features, summary

    def compute_output_shape(self, input_shape: Shape) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "pool": self.pool,
            "hidden_units": self.hidden_units,
            "dropout": self.dropout,
            "gradient_scale": self.gradient_scale,
            "summary_units": self.summary_units,
            "label_layer": None if self.label_layer is None else keras.saving.serialize_keras_object(self.label_layer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "EarlyExit":
        config = dict(config)
        config["label_layer"] = keras.saving.deserialize_keras_object(config.get("label_layer"))
        return cls(**config)


def scaled_gradient(tensor: Tensor, scale: float) -> Tensor:
    """The tensor itself, whose gradient arrives times `scale`."""
    still = ops.stop_gradient(tensor)
    return still + scale * (tensor - still)
