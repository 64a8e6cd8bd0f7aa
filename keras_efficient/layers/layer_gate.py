"""`LayerGate`: a layer or block that runs only for inputs which need it."""

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_efficient import cost
from keras_efficient.cost.observe import sublayers
from keras_efficient.layers.dynamic import DynamicLayer, dynamic_layers, outermost
from keras_efficient.ops import branch, context

Tensor = Any
Shape = Sequence[int | None]


@keras.saving.register_keras_serializable(package="keras_efficient")
class LayerGate(DynamicLayer):
    """Wraps a layer or model `F` so that an input can pass it by (the L-Net of LC-Net).

        s = relu1(w . mean(x) + b)                       # [B, 1], a value up to `gate_threshold` becomes 0
        y = s * F(x) + shortcut(x)

    Where `s` is 0, `F` need not be computed, nor any gate net inside it. Training and batches compute it all the same
    and multiply; inside `ops.skipping()`, for one input at a time, `F` sits in a branch that does not run, and an
    exported file holds an IF. All give the same numbers.

    >>> inner = GatedConv2D(16, 3, padding="same", activation="relu")
    >>> block = keras.Sequential([inner, keras.layers.Conv2D(16, 3, padding="same")])
    >>> x = keras.layers.ReLU()(LayerGate(block)(x))

    Args:
        layer: `F`: a Keras layer or model of one input and one output.
        shortcut: `"identity"`, None (a skipped input gives zeros), or a Keras layer, such as a projection.
        branch: Whether an input whose gate is shut passes `F` by. Without it `F` is computed and multiplied by `s` for
            every input: the same numbers without the cost of an IF, for gates that are hardly ever shut
            (`models.remove_idle_branches`).
        **kwargs: `gate` (`"relu1"` or `"binary_concrete"`), `gate_threshold`, `gate_leak`, `gate_kernel_initializer`
            and `gate_bias_initializer` of `DynamicLayer`, and the arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `[B, ..., C]`.
        training: Whether to train.

    Returns:
        What `F` returns, `[B, ...]`.

    Reference: Xia et al., "Fully Dynamic Inference with Deep Neural Networks", IEEE TETC 2022.
    """

    INPUT, SHORTCUT, SCALE, SCALED, OUTPUT = range(5)  # where tensors pass the border of the branches

    def __init__(
        self, layer: keras.layers.Layer, shortcut: Any = "identity", branch: bool = True, **kwargs: Any
    ) -> None:
        if kwargs.get("gate", "relu1") is None:
            raise ValueError("Invalid value for argument `gate`. Expected 'relu1' or 'binary_concrete'. Received: None")
        super().__init__(**kwargs)
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(
                f"Invalid value for argument `layer`. Expected a Keras layer or model. Received: {layer!r}"
            )
        if shortcut not in ("identity", None) and not isinstance(shortcut, keras.layers.Layer):
            raise ValueError(
                "Invalid value for argument `shortcut`. Expected 'identity', None or a Keras layer. "
                f"Received: {shortcut!r}"
            )
        self.layer = layer
        self.shortcut = shortcut
        self.branch = bool(branch)

    def build(self, inputs_shape: Shape) -> None:
        if len(inputs_shape) < 2 or inputs_shape[-1] is None:
            raise ValueError(
                "Invalid shape for argument `inputs`. Expected [batch, ..., channels] with known channels. "
                f"Received: {tuple(inputs_shape)}"
            )
        self.build_gate(int(inputs_shape[-1]), 1)
        shapes = []
        for part in (self.layer, self.shortcut):
            if isinstance(part, keras.layers.Layer):
                if not part.built:
                    part.build(inputs_shape)
                shapes.append(tuple(part.compute_output_shape(inputs_shape)))
            elif part == "identity":
                shapes.append(tuple(inputs_shape))
        if len(shapes) == 2 and shapes[0][1:] != shapes[1][1:]:
            raise ValueError(
                f"Invalid value for argument `shortcut`. Expected the output shape of `layer`, {shapes[0]}. "
                f"Received: {shapes[1]}"
            )
        self._inputs_shape = tuple(inputs_shape)
        self.build_budget(countable=None not in self._inputs_shape[1:])

    def macs_when_open(self) -> float:
        with cost.counting(self.layer) as events:
            self.layer(ops.zeros((1, *self._inputs_shape[1:]), self.compute_dtype), training=False)
        return sum(event.dense for event in events)

    @property
    def least_macs(self) -> float:
        """MACs per input with every gate shut: what the gate net takes; without a branch, what `F` takes then, too."""
        if self.branch:
            return super().least_macs
        inner = outermost(dynamic_layers(self.layer))
        return self.dense_macs - sum(layer.dense_macs - layer.least_macs for layer in inner)

    def layers_in_budget(self) -> list[keras.layers.Layer]:
        """`layer` and what is inside it; the shortcut runs whether the gate is open or not."""
        return [self.layer, *sublayers(self.layer)]

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        gate, opened = self.gate_values(inputs, training)
        opened = opened[:, 0] if self.branch else ops.ones_like(opened[:, 0])
        passed = inputs if self.shortcut == "identity" else None if self.shortcut is None else self.shortcut(inputs)
        if self.branch and context.is_skipping() and not training:
            return self._skipped(inputs, gate, passed)
        counting = cost.counting(self.layer) if training and self._countable else contextlib.nullcontext()
        with context.executed_when(ops.stop_gradient(opened)), counting as events:
            y = self._open(inputs, gate, passed, training)
        if events is not None:
            context.keep(events)
            self.spend(_charged(events, opened))
        return y

    def enter(self, tensor: Tensor, place: int) -> Tensor:
        """A tensor that enters a branch, or is made in one. For the exporter to replace, as `leave`."""
        return tensor

    def leave(self, tensor: Tensor, is_open: bool) -> Tensor:
        """What a branch gives, the one with `F` or the one without."""
        return tensor

    def _open(self, inputs: Tensor, gate: Tensor, passed: Tensor, training: bool | None = None) -> Tensor:
        """`s * F(x) + shortcut(x)`."""
        x = self.enter(inputs, self.INPUT)
        y = self._scaled(x, gate, training)
        if passed is not None:
            passed = x if passed is inputs else self.enter(passed, self.SHORTCUT)
            y = y + ops.cast(passed, y.dtype)
        return ops.cast(self.leave(y, True), self.compute_dtype)

    def _scaled(self, x: Tensor, gate: Tensor, training: bool | None) -> Tensor:
        """`s * F(x)`, no gate being 1; a gated convolution at the end of `F` scales with the gates of its channels."""
        if gate is None:
            return self.layer(x, training=training)
        last = None if training else _last_layer(self.layer)
        if getattr(last, "takes_scale", False):
            with context.scaling(last, gate):
                return self.layer(x, training=training)
        y = self.layer(x, training=training)
        gate = ops.cast(ops.reshape(gate, (-1, *[1] * (len(y.shape) - 1))), y.dtype)
        return self.enter(y * self.enter(gate, self.SCALE), self.SCALED)

    def _shut(self, inputs: Tensor, passed: Tensor) -> Tensor:
        """`shortcut(x)`, or zeros."""
        if passed is None:
            shape = self.layer.compute_output_shape(tuple(inputs.shape))
            return self.leave(ops.zeros((1, *shape[1:]), self.compute_dtype), False)
        passed = self.enter(passed, self.INPUT if passed is inputs else self.SHORTCUT)
        return ops.cast(self.leave(passed, False), self.compute_dtype)

    def _skipped(self, inputs: Tensor, gate: Tensor, passed: Tensor) -> Tensor:
        """`F` in a branch that runs only where the gate is open."""
        if inputs.shape[0] not in (None, 1):
            raise ValueError(
                "Invalid value for argument `inputs`. Expected a batch of one input to skip a layer. "
                f"Received: {inputs.shape[0]}"
            )
        is_open = ops.reshape(gate, ()) > 0
        scale = None if self.gate == "binary_concrete" else gate
        return branch(is_open, lambda: self._open(inputs, scale, passed), lambda: self._shut(inputs, passed))

    def compute_output_shape(self, inputs_shape: Shape) -> tuple[int | None, ...]:
        return tuple(self.layer.compute_output_shape(tuple(inputs_shape)))

    def get_config(self) -> dict[str, Any]:
        shortcut = self.shortcut
        if isinstance(shortcut, keras.layers.Layer):
            shortcut = keras.saving.serialize_keras_object(shortcut)
        layer = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": layer, "shortcut": shortcut, "branch": self.branch}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LayerGate":
        config = dict(config)
        config["layer"] = keras.saving.deserialize_keras_object(config["layer"])
        if isinstance(config["shortcut"], dict):
            config["shortcut"] = keras.saving.deserialize_keras_object(config["shortcut"])
        return cls(**config)


def _last_layer(layer: Any) -> Any:
    """The layer whose output a network returns, where it is called once; the layer itself, if it is no network."""
    outputs = getattr(layer, "outputs", None)
    if not isinstance(layer, keras.Model) or not outputs or len(outputs) != 1:
        return layer
    last = outputs[0]._keras_history.operation
    return last if len(last._inbound_nodes) == 1 else None


def _charged(events: Sequence[context.Event], opened: Tensor) -> Tensor:
    """MACs `[B]` of the inputs that pass the gate.

    A closed gate feels the dense cost: the most that opening it could cost.
    """
    spent = sum((event.executed for event in events), ops.zeros_like(opened))
    dense = sum(event.dense for event in events)
    return opened * ops.stop_gradient(ops.where(opened > 0, spent, dense))
