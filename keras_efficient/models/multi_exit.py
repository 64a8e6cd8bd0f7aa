"""`MultiExit`: a network with several exits, trained with plain `compile` and `fit`, left early by a policy."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_efficient import cost
from keras_efficient.cost.inputs import zero_inputs
from keras_efficient.cost.observe import sublayers
from keras_efficient.layers import EarlyExit
from keras_efficient.layers.dynamic import DynamicLayer
from keras_efficient.layers.early_exit import scaled_gradient
from keras_efficient.models.exit_routing import ExitRouting
from keras_efficient.models.splitting import split_at, split_at_exits
from keras_efficient.ops import context

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_efficient")
class MultiExit(ExitRouting):
    """A chain of stages with an exit behind each.

        F_0 = x;  F_k = stage_k(F_{k-1});  z_k, r_k = exit_k(F_k, r_{k-1});  z_K = F_K

    Called, it gives the logits of all exits, `{"exit_1": [B, n], ..., "exit_K": [B, n]}`. `compile` takes one loss and
    one list of metrics and applies them to every exit; `fit` and `evaluate` take the labels once.

    With a `policy`, a Keras layer with `policy(features, exit_index=k) -> [B]` that leaves where it is above 0,
    `predict` gives the logits of the exit taken, and computes later stages only for the inputs that get there. Inside
    `ops.skipping()` (one input at a time) the network itself gives `{"output": [1, n], "exit_index": int32 [1]}` and
    computes nothing behind the exit taken. A policy's features are `exit_features(z_k, k, K)` `[B, 4]`, followed by the
    running summary `r_k` `[B, S]` for a policy that asks for it by its `num_features`.

    >>> model = MultiExit.from_model(network)
    >>> model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    >>> model.fit(x, y)
    >>> model.policy = policies.ThresholdPolicy.tune(policies.ExitData(**model.exit_data(x_val, y_val)), budget=0.5)
    >>> logits, exit_index = model.predict_exits(x_test)

    Args:
        stages: `K` Keras models or layers. The last gives logits.
        exits: `K - 1` built `EarlyExit` layers.
        policy: Exit policy, or None. Setting it makes it non-trainable: `fit` leaves it alone.
        **kwargs: Arguments of `keras.Model`.

    Reference: Dai, Kong and Guo, "EPNet: Learning to Exit with Flexible Multi-Branch Network", CIKM 2020.
    """

    def __init__(
        self,
        stages: Sequence[keras.layers.Layer],
        exits: Sequence[EarlyExit],
        policy: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if len(stages) < 2 or len(exits) != len(stages) - 1:
            raise ValueError(
                "Invalid value for argument `exits`. Expected one exit less than stages, and at least one. "
                f"Received: {len(exits)} exits for {len(stages)} stages"
            )
        if not all(isinstance(layer, EarlyExit) for layer in exits):
            raise ValueError(f"Invalid value for argument `exits`. Expected `EarlyExit` layers. Received: {exits}")
        if len({layer.summary_units for layer in exits}) != 1:
            raise ValueError(
                "Invalid value for argument `exits`. Expected the same `summary_units` at every exit. "
                f"Received: {[layer.summary_units for layer in exits]}"
            )
        self.stages = list(stages)
        self.exits = list(exits)
        self._place_policy(policy)

    @classmethod
    def from_model(
        cls,
        model: keras.Model,
        exits: Sequence[str] | None = None,
        exit_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> "MultiExit":
        """Cuts a Functional or Sequential model at its exits; its layers are shared, not copied.

        >>> MultiExit.from_model(network)                                        # has `EarlyExit` layers
        >>> MultiExit.from_model(network, ["block_1", "block_2"], {"pool": "average_max", "summary_units": 64})

        Args:
            model: Built model whose output are logits `[B, n]`.
            exits: Names of the layers behind which to leave, from the first to the last, for a model without
                `EarlyExit` layers.
            exit_options: Arguments of the `EarlyExit` layers that are made for `exits`.
            **kwargs: Arguments of `MultiExit`.

        Raises:
            ValueError: If the model is not built, has no exit, does not end in logits, if a name is no layer's, or if
                a layer behind an exit reads something from before it; the message names the layer.
        """
        if exits is None:
            if exit_options:
                raise ValueError(
                    "Invalid value for argument `exit_options`. Expected none without names in `exits`. "
                    f"Received: {exit_options}"
                )
            stages, units = split_at_exits(model)
        else:
            stages = split_at(model, exits)
            classes = int(model.outputs[0].shape[-1])
            units = [EarlyExit(classes, name=f"exit_{k + 1}", **(exit_options or {})) for k in range(len(exits))]
        made = cls(stages, units, name=kwargs.pop("name", model.name), **kwargs)
        shapes = [tuple(tensor.shape) for tensor in model.inputs]
        made.build(shapes[0] if len(shapes) == 1 else shapes)
        return made

    def build(self, input_shape: Any) -> None:
        for k, stage in enumerate(self.stages):
            if not stage.built:
                stage.build(input_shape)
            try:
                input_shape = stage.compute_output_shape(input_shape)
            except Exception as error:
                raise ValueError(
                    f"Invalid value for argument `stages`. Expected stage {k} (`{stage.name}`) to take what the one "
                    f"before it gives, shape {input_shape}. It says: {error}"
                ) from error
            if k < len(self.exits) and not self.exits[k].built:
                self.exits[k].build(input_shape)
        self._check_logits(input_shape)
        self.built = True

    def _check_logits(self, shape: Any) -> None:
        for k, layer in enumerate(self.exits):
            if len(shape) != 2 or shape[-1] != layer.num_classes:
                raise ValueError(
                    f"Invalid value for argument `stages`. Expected the last stage to give logits "
                    f"[batch, {layer.num_classes}] like exit {k} (`{layer.name}`). Received: shape {tuple(shape)}"
                )

    @property
    def inputs(self) -> list[Any]:
        """The symbolic inputs of the first stage, with their names; empty where the stage is a plain layer."""
        return list(getattr(self.stages[0], "inputs", None) or [])

    @property
    def input(self) -> Any:
        """The symbolic inputs of the first stage in the structure that it takes."""
        return self.stages[0].input

    def call(
        self,
        inputs: Tensor,
        training: bool | None = None,
        trade_off: Tensor | None = None,
        max_exit: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Logits of all exits, or of the one taken.

        Args:
            inputs: The first stage's.
            training: As in Keras.
            trade_off: Float32 `[B]`, for a policy that takes it: accuracy that one gives for one full network's cost.
            max_exit: Int32 `[B]`, index of the last exit allowed; used where exits are really taken
                (`ops.skipping()`).
        """
        if self.policy is not None and context.is_skipping() and not training:
            batch = keras.tree.flatten(inputs)[0].shape[0]
            if batch not in (None, 1):
                raise ValueError(
                    "Invalid value for argument `inputs`. Expected a batch of one input to take an exit. "
                    f"Received: {batch}"
                )
            return self._left_early({"features": inputs}, 0, trade_off, max_exit)
        return dict(zip(self.exit_names, self._all_logits(inputs, training, trade_off), strict=True))

    def pass_stage(self, k: int, carry: dict[str, Tensor]) -> dict[str, Tensor]:
        """Runs stage `k` without the label unit behind it; gives what the next stage takes. See `run_stage`."""
        return {"features": self.stages[k](carry["features"], training=False)}

    def run_stage(
        self, k: int, carry: dict[str, Tensor], training: bool | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Runs stage `k` (0 for the first) and the label unit behind it.

        Args:
            k: Index of the stage.
            carry: `{"features": F}`, the model's inputs for stage 0, and from there on the dictionary that the stage
                before gave, which also holds the running `"summary"` `[B, S]` where the exits have one.
            training: As in Keras.

        Returns:
            What the next stage takes, and the logits `[B, n]` of this exit.
        """
        features = self.stages[k](carry["features"], training=training)
        if k + 1 == self.num_exits:
            return {"features": features}, features
        further = to_branch = features
        if training and self.gradient_equilibrium:
            here_and_later = self.num_exits - k
            to_branch = scaled_gradient(features, 1 / here_and_later)
            further = scaled_gradient(features, (here_and_later - 1) / here_and_later)
        logits, summary = self.exits[k].branch_and_summary(to_branch, carry.get("summary"), training)
        return {"features": further, **({} if summary is None else {"summary": summary})}, logits

    def exit_costs(self, x: Any = None) -> NDArray[np.float64]:
        """`[K]` MACs per input up to and including each exit, label units included.

        Args:
            x: Inputs to average over where gates decide; without them everything counts as open.
        """
        dense = x is None or not any(
            isinstance(layer, DynamicLayer) or getattr(layer, "calls_op", False) for layer in sublayers(self)
        )
        if dense:
            x = zero_inputs(self, 1)
        sizes = [len(array) for array in keras.tree.flatten(x)]
        totals = np.zeros(self.num_exits)
        step = 256
        for start in range(0, sizes[0], step):
            rows = slice(start, start + step)
            carry = {"features": keras.tree.map_structure(lambda array, at=rows: ops.convert_to_tensor(array[at]), x)}
            size = min(step, sizes[0] - start)
            for k in range(self.num_exits):
                with cost.counting(self) as events:
                    carry, _ = self.run_stage(k, carry, False)
                totals[k] += size * sum(event.dense if dense else float(ops.mean(event.executed)) for event in events)
        return np.cumsum(totals) / sizes[0]

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": serialize(self.dtype_policy),
            "stages": [serialize(stage) for stage in self.stages],
            "exits": [serialize(layer) for layer in self.exits],
            "policy": None if self.policy is None else serialize(self.policy),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "MultiExit":
        config = dict(config)
        for key in ("stages", "exits", "policy", "dtype"):
            config[key] = keras.saving.deserialize_keras_object(config.get(key), custom_objects=custom_objects)
        return cls(**config)
