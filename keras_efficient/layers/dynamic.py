"""What all layers with gates share: a gate net, the multiply-adds they execute, and their part in a compute budget."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_efficient.cost.observe import sublayers
from keras_efficient.layers.gates import budget_open, concrete_gate, relu1, soft_gate
from keras_efficient.layers.keeps_frozen import KeepsFrozen
from keras_efficient.ops import context, gate_net
from keras_efficient.ops.gate_net import decide, pool
from keras_efficient.ops.macs import dense_macs

Tensor = Any
GATES = ("relu1", "binary_concrete", None)
OPEN_BIAS = {"relu1": 0.9, "binary_concrete": 2.0}  # where gates begin: a binary concrete one is open at 88 %


def dynamic_layers(model: keras.layers.Layer) -> "list[DynamicLayer]":
    """All dynamic layers of a model, those inside others too."""
    return [layer for layer in (model, *sublayers(model)) if isinstance(layer, DynamicLayer)]


def outermost(layers: "list[DynamicLayer]") -> "list[DynamicLayer]":
    """The layers whose MACs are not part of another one's."""
    inside = {id(inner) for layer in layers for inner in layer.layers_in_budget()}
    return [layer for layer in layers if id(layer) not in inside]


class DynamicLayer(KeepsFrozen):
    """Base of layers that decide per input what they compute.

    A subclass calls `build_gate` and `build_budget` in its `build`, `gate_values` and `spend` in its `call`. In
    training `spend` adds `budget_coefficient * mean(executed MACs)` to the losses and keeps a running mean in
    `executed_macs`. Both are scalar weights that `callbacks.ComputeBudget` reads and sets; with the coefficient at 0,
    where it starts, the layer trains for accuracy alone.

    Args:
        gate: `"relu1"` for a gate net of its own, `S(x) = min(max(W GAP(x) + b, 0), 1)`, decision and scale in one;
            `"binary_concrete"` for one that decides and does not scale, `S(x) = 1` where `W GAP(x) + b > 0`, else 0,
            with logistic noise and a temperature in training (`callbacks.GateSchedule` lowers it); None for none.
        gate_threshold: In [0, 1). A gate at or below it is shut.
        gate_leak: In [0, 1]. Slope of the gradient where the gate is shut or saturated.
        gate_kernel_initializer: For `W` `[channels, gates]`; default normal with standard deviation 0.01.
        gate_bias_initializer: For `b` `[gates]`; default 0.9, or 2 for `"binary_concrete"`: open, but not saturated.
        gate_regularizer: A loss in training on how open the gates are, `[B, gates]` in [0, 1] with the decision at 1/2
            (see `openness`), such as `layers.BatchShaping`; default none.
        frozen: Parts that do not train, whatever `trainable` says: `"gate"` for the gate net, whose decisions are then
            those of inference in training too and pass no gradient; of a convolution also `"weights"` and `"norm"`. See
            `freeze`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        budget_coefficient: Scalar weight, loss per executed MAC.
        executed_macs: Scalar weight, running mean of the MACs executed per input in training; 0 before any.

    Reference: Xia et al., "Fully Dynamic Inference with Deep Neural Networks", IEEE TETC 2022.
    """

    running_mean_momentum = 0.8
    parts: tuple[str, ...] = ("gate",)

    def __init__(
        self,
        *,
        gate: str | None = "relu1",
        gate_threshold: float = 0.01,
        gate_leak: float = 0.1,
        gate_kernel_initializer: Any = None,
        gate_bias_initializer: Any = None,
        gate_regularizer: Any = None,
        frozen: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if gate not in GATES:
            raise ValueError(f"Invalid value for argument `gate`. Expected one of {GATES}. Received: {gate!r}")
        if not 0 <= gate_threshold < 1:
            raise ValueError(
                "Invalid value for argument `gate_threshold`. Expected a number in [0, 1). "
                f"Received: {gate_threshold!r}"
            )
        if not 0 <= gate_leak <= 1:
            raise ValueError(
                f"Invalid value for argument `gate_leak`. Expected a number in [0, 1]. Received: {gate_leak!r}"
            )
        self.frozen = self._checked_parts("frozen", frozen)
        self.gate = gate
        self.gate_threshold = float(gate_threshold)
        self.gate_leak = float(gate_leak)
        self.gate_kernel_initializer = keras.initializers.get(
            gate_kernel_initializer or keras.initializers.RandomNormal(stddev=0.01)
        )
        self.gate_bias_initializer = keras.initializers.get(
            gate_bias_initializer or keras.initializers.Constant(OPEN_BIAS.get(gate or "relu1"))
        )
        self.gate_regularizer = keras.regularizers.get(gate_regularizer)
        self.gate_kernel: Any = None
        self.gate_bias: Any = None
        self.gate_temperature: Any = None
        self._gate_noise = keras.random.SeedGenerator() if gate == "binary_concrete" else None
        self._gate_macs = 0.0
        self._countable = False

    def build_gate(self, channels: int, gates: int) -> None:
        """Makes the weights of the gate net: `gates` values from the mean of `channels` channels."""
        self.gate_kernel = self.add_weight(
            name="gate_kernel", shape=(channels, gates), initializer=self.gate_kernel_initializer
        )
        self.gate_bias = self.add_weight(name="gate_bias", shape=(gates,), initializer=self.gate_bias_initializer)
        if self.gate == "binary_concrete":
            self.gate_temperature = self.add_weight(
                name="gate_temperature",
                shape=(),
                dtype="float32",
                initializer=keras.initializers.Constant(2 / 3),
                trainable=False,
                autocast=False,
                aggregation="only_first_replica",
            )
        self._gate_macs = float(dense_macs(channels, gates))

    def build_budget(self, countable: bool) -> None:
        """Makes the two weights of a budget. `countable`: whether MACs can be counted, all dimensions being static."""
        self._countable = countable
        scalar = {"shape": (), "dtype": "float32", "initializer": "zeros", "trainable": False, "autocast": False}
        self.budget_coefficient = self.add_weight(name="budget_coefficient", aggregation="only_first_replica", **scalar)
        self.executed_macs = self.add_weight(name="executed_macs", aggregation="mean", **scalar)
        self.keep_frozen()

    def freeze(self, *parts: str) -> None:
        """Parts of the layer train no more, here and in what is loaded from a file of it; compile the model anew.

        Raises:
            ValueError: If the layer has no such part.
        """
        self.frozen = tuple(dict.fromkeys((*self.frozen, *self._checked_parts("parts", parts))))
        self.keep_frozen()

    def _checked_parts(self, argument: str, parts: Sequence[str]) -> tuple[str, ...]:
        if isinstance(parts, str) or not set(parts) <= set(self.parts):
            raise ValueError(
                f"Invalid value for argument `{argument}`. Expected some of {self.parts}. Received: {parts!r}"
            )
        return tuple(parts)

    def variables_of(self, part: str) -> list[Any]:
        """The variables of one of `parts`. For subclasses that have more to extend."""
        return [self.gate_kernel, self.gate_bias] if part == "gate" and self.gate_kernel is not None else []

    def keep_frozen(self) -> None:
        for part in getattr(self, "frozen", ()):
            for variable in self.variables_of(part):
                variable.trainable = False

    def macs_when_open(self) -> float:
        """MACs per input with every gate open, the gate net of this layer left out. For subclasses to define."""
        raise NotImplementedError(f"{type(self).__name__} does not implement `macs_when_open()`.")

    @property
    def dense_macs(self) -> float:
        """MACs per input with every gate open, the gate net included.

        Raises:
            ValueError: If the layer is not built, or was built for inputs of unknown size.
        """
        if not self.built or not self._countable:
            state = f"built for {self.get_build_config()}" if self.built else "not built yet"
            raise ValueError(
                f"The MACs of layer `{self.name}` are not known. Expected a layer built for static dimensions behind "
                f"the batch. Received: {state}"
            )
        return self.macs_when_open() + self._gate_macs

    @property
    def least_macs(self) -> float:
        """MACs per input with every gate shut: what the gate net takes; all of them where there is no gate."""
        return self.dense_macs if self.gate is None else self._gate_macs

    def layers_in_budget(self) -> list[keras.layers.Layer]:
        """The layers inside whose MACs `dense_macs` and `executed_macs` hold; by default all."""
        return sublayers(self)

    def load_own_variables(self, store: Any) -> None:
        """Loads the weights; a checkpoint taken in the middle of a budget does not bring its coefficient along."""
        super().load_own_variables(store)
        self.budget_coefficient.assign(0.0)

    def gate_values(self, x: Tensor, training: bool | None) -> tuple[Tensor, Tensor]:
        """The gates for `x` `[B, ..., channels]`.

        Returns:
            The gates `[B, gates]`, decision and scale in one, and 1 where they are open, else 0, in float32; in
            training with gradients, of the task and of a budget.
        """
        if not training and len(x.shape) == 4 and not context.is_inlining():
            kind, threshold = str(self.gate), self.gate_threshold
            gate = gate_net(x, *self._gate_weights(x.dtype), gate=kind, threshold=threshold)
            return gate, ops.cast(gate > 0, "float32")
        values = ops.matmul(self.pool_for_gate(x), self.gate_kernel) + self.gate_bias
        context.record(f"{self.name}/gate", self._gate_macs, ops.ones((1,)) * self._gate_macs)
        if training and self.gate_regularizer is not None:
            self.add_loss(self.gate_regularizer(openness(values, self.gate)))
        if not training:
            gate = decide(values, str(self.gate), self.gate_threshold)
            return gate, ops.cast(gate > 0, "float32")
        if "gate" in self.frozen:  # what gates read learns nothing from them either: it would learn to open them
            gate = ops.stop_gradient(decide(values, str(self.gate), self.gate_threshold))
            return gate, ops.cast(gate > 0, "float32")
        if self.gate == "binary_concrete":
            noise = _logistic(ops.shape(values), self._gate_noise)
            opened = concrete_gate(values, noise, self.gate_temperature)
            return ops.cast(opened, values.dtype), opened
        opened = budget_open(values, self.gate_threshold, self.budget_coefficient)
        return soft_gate(values, self.gate_threshold, self.gate_leak), opened

    def pool_for_gate(self, x: Tensor) -> Tensor:
        """What the gate net reads of `x` `[B, ..., channels]`: the mean of each channel, `[B, channels]`."""
        return pool(x)

    def _gate_weights(self, dtype: Any) -> tuple[Tensor, Tensor]:
        return ops.cast(self.gate_kernel, dtype), ops.cast(self.gate_bias, dtype)

    def spend(self, macs: Tensor) -> None:
        """In training: note and charge for the MACs `[B]` that each input needed, gate net not included.

        Inside another gate (`ops.execution_mask()`) only inputs that pass it count, and only a gradient is added: the
        outer layer's loss holds these MACs already.
        """
        macs = macs + self._gate_macs
        mask = context.execution_mask()
        if mask is not None:
            macs = macs * ops.stop_gradient(mask)
        mean = ops.mean(macs)
        now = ops.stop_gradient(mean)
        self.add_loss(self.budget_coefficient * (mean if mask is None else mean - now))
        momentum = ops.where(self.executed_macs > 0, self.running_mean_momentum, 0.0)
        self.executed_macs.assign(momentum * self.executed_macs + (1.0 - momentum) * now)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "gate": self.gate,
            "gate_threshold": self.gate_threshold,
            "gate_leak": self.gate_leak,
            "gate_kernel_initializer": keras.initializers.serialize(self.gate_kernel_initializer),
            "gate_bias_initializer": keras.initializers.serialize(self.gate_bias_initializer),
            "gate_regularizer": keras.regularizers.serialize(self.gate_regularizer),
            "frozen": list(self.frozen),
        }


def openness(values: Tensor, gate: str | None) -> Tensor:
    """What a `gate_regularizer` sees of the values `[B, gates]` of a gate net, float32 in [0, 1], open above 1/2.

    `sigmoid(v)` for `"binary_concrete"`, the chance to be open in training, and `relu1(v + 1/2)` for `"relu1"`, with a
    gradient that goes straight through, so that gates which are certain can be moved.
    """
    values = ops.cast(values, "float32")
    if gate == "binary_concrete":
        return ops.sigmoid(values)
    values = values + 0.5
    return ops.stop_gradient(relu1(values) - values) + values


def _logistic(shape: Any, seed: Any) -> Tensor:
    """Standard logistic noise."""
    uniform = keras.random.uniform(shape, 1e-6, 1 - 1e-6, dtype="float32", seed=seed)
    return ops.log(uniform) - ops.log(1.0 - uniform)
