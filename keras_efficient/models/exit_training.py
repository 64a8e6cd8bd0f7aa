"""How a multi-exit network is trained: one loss for all exits, gradient equilibrium, self-distillation."""

from typing import Any

import keras
from keras import ops

from keras_efficient.layers import EarlyExit

Tensor = Any


class ExitTraining(keras.Model):
    """The exits of a network and how they are trained: `compile` and the losses."""

    stages: list[keras.layers.Layer]
    exits: list[EarlyExit]
    gradient_equilibrium: bool = False
    distillation: float = 0.0
    temperature: float = 3.0

    @property
    def num_exits(self) -> int:
        """Number of exits, the end of the network included."""
        return len(self.stages)

    @property
    def exit_names(self) -> list[str]:
        """`["exit_1", ..., "exit_K"]`, the keys of the outputs."""
        return [f"exit_{k + 1}" for k in range(self.num_exits)]

    @property
    def summary_units(self) -> int:
        """Width `S` of the running summary, 0 without one."""
        return int(self.exits[0].summary_units or 0)

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        gradient_equilibrium: bool = False,
        distillation: float = 0.0,
        temperature: float = 3.0,
        **kwargs: Any,
    ) -> None:
        """As `keras.Model.compile`, with one loss and one list of metrics for all exits.

        Args:
            optimizer: As in Keras.
            loss: One loss, which every exit has, or a dictionary by exit.
            loss_weights: `K` numbers, default 1 each, or a dictionary by exit.
            metrics: A list, of which every exit gets its own copies (`exit_1_accuracy`, ...), or a dictionary by exit.
            gradient_equilibrium: Whether what flows back at exit `k` is the mean, not the sum, of what the exits from
                there on send: the branch's gradient times `1 / (K - k + 1)`, that from further on times
                `(K - k) / (K - k + 1)`. For many exits. Li et al., "Improved Techniques for Training Adaptive Deep
                Networks", ICCV 2019.
            distillation: Weight `w` of self-distillation: every exit but the last gets the further loss
                `w * T^2 * KL(softmax(z_K / T) || softmax(z_k / T))`, with no gradient into `z_K`.
            temperature: `T` above.
            **kwargs: Further arguments of `keras.Model.compile`.
        """
        if isinstance(loss_weights, (list, tuple)):
            if len(loss_weights) != self.num_exits:
                raise ValueError(
                    f"Invalid value for argument `loss_weights`. Expected {self.num_exits} numbers, one per exit. "
                    f"Received: {loss_weights}"
                )
            loss_weights = dict(zip(self.exit_names, loss_weights, strict=True))
        if not distillation >= 0:
            raise ValueError(
                f"Invalid value for argument `distillation`. Expected a number of at least 0. Received: {distillation}"
            )
        if not temperature > 0:
            raise ValueError(
                f"Invalid value for argument `temperature`. Expected a number above 0. Received: {temperature}"
            )
        self.gradient_equilibrium = bool(gradient_equilibrium)
        self.distillation = float(distillation)
        self.temperature = float(temperature)
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

    def get_compile_config(self) -> dict[str, Any] | None:
        config = super().get_compile_config()
        if config:
            for name in ("gradient_equilibrium", "distillation", "temperature"):
                config[name] = getattr(self, name)
        return config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Tensor:
        y, sample_weight = self._for_every_exit(y), self._for_every_exit(sample_weight)
        loss = super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        if self.distillation and training:
            loss = loss + self.distillation * self._distillation_loss(y_pred)
        return loss

    def _distillation_loss(self, logits: dict[str, Tensor]) -> Tensor:
        def log_softmax(name: str) -> Tensor:
            return ops.log_softmax(ops.cast(logits[name], "float32") / self.temperature, axis=-1)

        teacher = ops.stop_gradient(log_softmax(self.exit_names[-1]))
        divergences = [
            ops.mean(ops.sum(ops.exp(teacher) * (teacher - log_softmax(name)), axis=-1))
            for name in self.exit_names[:-1]
        ]
        return self.temperature**2 * sum(divergences)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        return super().compute_metrics(x, self._for_every_exit(y), y_pred, self._for_every_exit(sample_weight))

    def _for_every_exit(self, value: Any) -> Any:
        return value if value is None or isinstance(value, dict) else dict.fromkeys(self.exit_names, value)


def _copied(metric: Any) -> Any:
    """A metric with state of its own; names and functions are as good as copies."""
    return type(metric).from_config(metric.get_config()) if isinstance(metric, keras.metrics.Metric) else metric
