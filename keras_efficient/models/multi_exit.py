"""`MultiExit`: a network with several exits, trained with plain `compile` and `fit`, left early by a policy."""

import contextlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_efficient import cost
from keras_efficient.cost.inputs import zero_inputs
from keras_efficient.layers import EarlyExit, exit_features
from keras_efficient.models.splitting import split_at_exits
from keras_efficient.ops import branch, context
from keras_efficient.policies.exit_policy import decide

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_efficient")
class MultiExit(keras.Model):
    """A chain of stages with an exit behind each.

        F_0 = x;  F_k = stage_k(F_{k-1});  z_k = exit_k.branch(F_k);  z_K = F_K

    Called, it gives the logits of all exits, `{"exit_1": [B, n], ..., "exit_K": [B, n]}`. `compile` takes one loss and
    one list of metrics and applies them to every exit; `fit` and `evaluate` take the labels once.

    With a `policy`, a Keras layer with `policy(exit_features(z_k, k, K), exit_index=k) -> [B]` that leaves where it is
    above 0, `predict` gives the logits of the exit taken. Inside `ops.skipping()` (one input at a time) the network
    itself then gives `{"output": [1, n], "exit_index": int32 [1]}` and computes nothing behind the exit taken.

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
        self.stages = list(stages)
        self.exits = list(exits)
        self._policy_slot = _PolicySlot(name="policy_slot")
        self.policy = policy

    @classmethod
    def from_model(cls, model: keras.Model, **kwargs: Any) -> "MultiExit":
        """Cuts a Functional or Sequential model at its `EarlyExit` layers; its layers are shared, not copied.

        Raises:
            ValueError: If the model is not built, has no exit, does not end in logits, or if a layer behind an exit
                reads something from before it; the message names the layer.
        """
        stages, exits = split_at_exits(model)
        made = cls(stages, exits, name=kwargs.pop("name", model.name), **kwargs)
        shapes = [tuple(tensor.shape) for tensor in model.inputs]
        made.build(shapes[0] if len(shapes) == 1 else shapes)
        return made

    def build(self, input_shape: Any) -> None:
        for stage in self.stages:
            if not stage.built:
                stage.build(input_shape)
            input_shape = stage.compute_output_shape(input_shape)
        self.built = True

    @property
    def inputs(self) -> list[Any]:
        """The symbolic inputs of the first stage, with their names; empty where the stage is a plain layer."""
        return list(getattr(self.stages[0], "inputs", None) or [])

    @property
    def input(self) -> Any:
        """The symbolic inputs of the first stage in the structure that it takes."""
        return self.stages[0].input

    @property
    def num_exits(self) -> int:
        """Number of exits, the end of the network included."""
        return len(self.stages)

    @property
    def exit_names(self) -> list[str]:
        """`["exit_1", ..., "exit_K"]`, the keys of the outputs."""
        return [f"exit_{k + 1}" for k in range(self.num_exits)]

    @property
    def policy(self) -> keras.layers.Layer | None:
        """The exit policy, or None."""
        return self._policy_slot.policy

    @policy.setter
    def policy(self, policy: keras.layers.Layer | None) -> None:
        self._policy_slot.put(policy)

    def __setattr__(self, name: str, value: Any) -> None:
        # Keras takes no new sublayers once a model is built, but a policy is found after training: a slot holds it.
        if name == "policy":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def call(self, inputs: Tensor, training: bool | None = None) -> dict[str, Tensor]:
        if self.policy is not None and context.is_skipping() and not training:
            batch = keras.tree.flatten(inputs)[0].shape[0]
            if batch not in (None, 1):
                raise ValueError(
                    "Invalid value for argument `inputs`. Expected a batch of one input to take an exit. "
                    f"Received: {batch}"
                )
            return self._left_early(inputs, 0)
        return dict(zip(self.exit_names, self._all_logits(inputs, training), strict=True))

    def _all_logits(self, features: Tensor, training: bool | None) -> list[Tensor]:
        """Masked: everything is computed, and under `recording()` charged only where an input still runs."""
        routed = self.policy is not None and context.is_recording() and not training
        running = None
        found = []
        for k in range(self.num_exits):
            with contextlib.nullcontext() if running is None else context.executed_when(running):
                features, logits = self._stage(k, features, training)
            found.append(logits)
            if routed and k + 1 < self.num_exits:
                stays = ops.cast(self._score(k, logits) <= 0, "float32")
                running = stays if running is None else running * stays
        return found

    def _left_early(self, features: Tensor, k: int) -> dict[str, Tensor]:
        """Skipped: stage `k` and, in a branch that runs only for inputs which stay, what follows."""
        features, logits = self._stage(k, features, False)

        def leave() -> dict[str, Tensor]:
            return {"output": ops.cast(logits, "float32"), "exit_index": ops.full((1,), k, dtype="int32")}

        if k + 1 == self.num_exits:
            return leave()
        leaves = ops.reshape(self._score(k, logits), ()) > 0
        return branch(leaves, leave, lambda: self._left_early(features, k + 1))

    def _stage(self, k: int, features: Tensor, training: bool | None) -> tuple[Tensor, Tensor]:
        features = self.stages[k](features, training=training)
        return features, features if k + 1 == self.num_exits else self.exits[k].branch(features, training)

    def _score(self, k: int, logits: Tensor) -> Tensor:
        assert self.policy is not None
        return self.policy(exit_features(logits, k, self.num_exits), exit_index=k)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        policy: keras.layers.Layer | None = None,
    ) -> Any:
        """The logits `[N, n]` of the exit that each input takes; without any policy those of all exits, by name.

        Args:
            x, batch_size, verbose, steps, callbacks: As for `keras.Model.predict`.
            policy: Exit policy to use instead of `model.policy`.
        """
        if policy is None and self.policy is None:
            return self.predict_all(x, batch_size, verbose, steps, callbacks)
        return self.predict_exits(x, batch_size, verbose, steps, callbacks, policy)[0]

    def predict_all(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> dict[str, NDArray[Any]]:
        """The logits of every exit, `{"exit_1": [N, n], ...}`, in order."""
        predictions = super().predict(x, batch_size, verbose, steps, callbacks)
        return {name: predictions[name] for name in self.exit_names}

    def predict_exits(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        policy: keras.layers.Layer | None = None,
    ) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """The logits `[N, n]` of the exit taken and its index `[N]`, 0 for the first. Arguments as for `predict`."""
        policy = self.policy if policy is None else policy
        if policy is None:
            raise ValueError(
                "Invalid value for argument `policy`. Expected an exit policy, here or as `model.policy`. "
                "Received: None"
            )
        logits = np.stack(list(self.predict_all(x, batch_size, verbose, steps, callbacks).values()), axis=1)
        features = [exit_features(logits[:, k], k, self.num_exits) for k in range(self.num_exits)]
        taken = decide(policy, np.stack([ops.convert_to_numpy(f) for f in features], axis=1)).astype("int32")
        return logits[np.arange(len(logits)), taken], taken

    def exit_costs(self, x: Any = None) -> NDArray[np.float64]:
        """`[K]` MACs per input up to and including each exit, label units included.

        Args:
            x: Inputs to average over where gates decide; without them everything counts as open.
        """
        dense = x is None
        if dense:
            x = zero_inputs(self, 1)
        sizes = [len(array) for array in keras.tree.flatten(x)]
        totals = np.zeros(self.num_exits)
        step = 256
        for start in range(0, sizes[0], step):
            features = keras.tree.map_structure(lambda array, at=start: ops.convert_to_tensor(array[at : at + step]), x)
            size = min(step, sizes[0] - start)
            for k in range(self.num_exits):
                with cost.counting(self) as events:
                    features, _ = self._stage(k, features, False)
                totals[k] += size * sum(event.dense if dense else float(ops.mean(event.executed)) for event in events)
        return np.cumsum(totals) / sizes[0]

    def exit_data(self, x: Any, y: Any, batch_size: int | None = None, verbose: Any = 0) -> dict[str, NDArray[Any]]:
        """What exit policies are made from: `policies.ExitData(**model.exit_data(x, y))`, for data not trained on.

        Returns:
            `logits` `[N, K, n]`, `labels` `[N]`, and `costs` `[K]`: mean MACs up to each exit over those of the last.
        """
        logits = np.stack(list(self.predict_all(x, batch_size, verbose).values()), axis=1)
        costs = self.exit_costs(x)
        return {"logits": logits, "labels": np.asarray(y), "costs": costs / costs[-1]}

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, loss_weights: Any = None, metrics: Any = None, **kwargs: Any
    ) -> None:
        """As `keras.Model.compile`, with one loss and one list of metrics for all exits.

        Args:
            optimizer: As in Keras.
            loss: One loss, which every exit has, or a dictionary by exit.
            loss_weights: `K` numbers, default 1 each, or a dictionary by exit.
            metrics: A list, of which every exit gets its own copies (`exit_1_accuracy`, ...), or a dictionary by exit.
            **kwargs: Further arguments of `keras.Model.compile`.
        """
        if isinstance(loss_weights, (list, tuple)):
            if len(loss_weights) != self.num_exits:
                raise ValueError(
                    f"Invalid value for argument `loss_weights`. Expected {self.num_exits} numbers, one per exit. "
                    f"Received: {loss_weights}"
                )
            loss_weights = dict(zip(self.exit_names, loss_weights, strict=True))
        for key in ("metrics", "weighted_metrics"):
            given = metrics if key == "metrics" else kwargs.get(key)
            if given is not None and not isinstance(given, dict):
                kwargs[key] = {
                    name: [_copied(metric) for metric in keras.tree.flatten(given)] for name in self.exit_names
                }
            elif given is not None:
                kwargs[key] = given
        if loss is not None and not isinstance(loss, dict):
            loss = dict.fromkeys(self.exit_names, loss)
        super().compile(optimizer=optimizer, loss=loss, loss_weights=loss_weights, **kwargs)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        y, sample_weight = self._for_every_exit(y), self._for_every_exit(sample_weight)
        return super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        return super().compute_metrics(x, self._for_every_exit(y), y_pred, self._for_every_exit(sample_weight))

    def _for_every_exit(self, value: Any) -> Any:
        return value if value is None or isinstance(value, dict) else dict.fromkeys(self.exit_names, value)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

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


class _PolicySlot(keras.layers.Layer):
    """Holds a policy that may come after the model was built."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.policy: keras.layers.Layer | None = None
        self.built = True

    def put(self, policy: keras.layers.Layer | None) -> None:
        if policy is not None:
            if not isinstance(policy, keras.layers.Layer):
                raise ValueError(
                    f"Invalid value for argument `policy`. Expected a Keras layer or None. Received: {policy!r}"
                )
            policy.trainable = False
        self.policy = policy


def _copied(metric: Any) -> Any:
    """A metric with state of its own; names and functions are as good as copies."""
    return type(metric).from_config(metric.get_config()) if isinstance(metric, keras.metrics.Metric) else metric
