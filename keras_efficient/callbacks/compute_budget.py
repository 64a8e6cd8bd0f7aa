"""`ComputeBudget`: trains gates until a network spends the share of its compute that was asked for."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_efficient import cost
from keras_efficient.layers.dynamic import dynamic_layers, outermost

Logs = dict[str, Any] | None


class ComputeBudget(keras.callbacks.Callback):
    """Steers the gates of a network so that it executes a target share of its dense multiply-adds.

        share = (static MACs + executed MACs of the dynamic layers, running mean) / dense MACs
        loss += coefficient * share,   coefficient = 2 strength (share - target) + integral sum(share - target)

    The first term is the gradient of `strength * (share - target)^2`; the second, as in a controller, removes the error that
    the task's own gradient would leave. Below the target the coefficient is negative and opens gates. After each batch the
    callback reads what the layers have executed, sets their `budget_coefficient`, and adds `macs_share` to the logs. Put it
    before callbacks that shall see that number (`TensorBoard`, `CSVLogger`); the progress bar and `History` see it anyway.

    Args:
        target: Share of the dense MACs of the whole model, in (0, 1].
        strength: Weight of the squared error beside the task's loss.
        integral: Gain per batch of the summed error, relative to `strength`; 0 for none.
        warmup_epochs: Over how many epochs the coefficient grows to its full size; may be a fraction.
        update_every: Batches between two updates.

    Raises:
        ValueError: If an argument is out of range; when training begins, if the model has no gated layers, or layers without
            gates alone cost more than the target.

    Reference: the squared form is that of Li et al., "Dynamic Dual Gating Neural Networks", ICCV 2021.
    """

    def __init__(
        self,
        target: float,
        strength: float = 5.0,
        integral: float = 0.02,
        warmup_epochs: float = 0.0,
        update_every: int = 1,
    ) -> None:
        super().__init__()
        if isinstance(target, bool) or not isinstance(target, (int, float, np.floating)) or not 0 < target <= 1:
            raise ValueError(f"Invalid value for argument `target`. Expected a share in (0, 1]. Received: {target!r}")
        for name, value in (("strength", strength), ("integral", integral), ("warmup_epochs", warmup_epochs)):
            if not value >= 0:
                raise ValueError(
                    f"Invalid value for argument `{name}`. Expected a number of at least 0. Received: {value!r}"
                )
        if isinstance(update_every, bool) or not isinstance(update_every, int) or update_every < 1:
            raise ValueError(
                f"Invalid value for argument `update_every`. Expected a positive integer. Received: {update_every!r}"
            )
        self.target = float(target)
        self.strength = float(strength)
        self.integral = float(integral)
        self.warmup_epochs = float(warmup_epochs)
        self.update_every = update_every

    def on_train_begin(self, logs: Logs = None) -> None:
        self._synchronize()
        self._layers = dynamic_layers(self.model)
        if not any(layer.gate is not None for layer in self._layers):
            raise ValueError(
                f"`ComputeBudget` expected a model with gated layers, such as `GatedConv2D` or `LayerGate`. Received: "
                f"`{self.model.name}` without any"
            )
        self._outermost = outermost(self._layers)
        self._dense = cost.profile(self.model).macs
        self._static = self._dense - sum(layer.dense_macs for layer in self._outermost)
        if self._static > self.target * self._dense:
            raise ValueError(
                "Invalid value for argument `target`. Expected more than the share of the layers without gates, "
                f"{self._static / self._dense:.3f} of `{self.model.name}`. Received: {self.target}"
            )
        self._sum = 0.0
        self._batches = 0
        self._share = 1.0
        self._warmup_batches = self.warmup_epochs * (self.params.get("steps") or 0)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._batches += 1
        if self._batches % self.update_every == 0:
            self._synchronize()
            self._share = self._executed_share()
            self._set(self._coefficient())
        if logs is not None:
            logs["macs_share"] = self._share

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if logs is not None:
            logs["macs_share"] = self._share

    def on_train_end(self, logs: Logs = None) -> None:
        self._synchronize()
        self._set(0.0)

    def _executed_share(self) -> float:
        executed = sum(float(ops.convert_to_numpy(layer.executed_macs)) for layer in self._outermost)
        return (self._static + executed) / self._dense

    def _coefficient(self) -> float:
        """Loss per unit of share; the summed error is bounded, so that it cannot wind up while gates are slow."""
        error = self._share - self.target
        if self.integral > 0:
            bound = 1.0 / self.integral
            self._sum = min(max(self._sum + error * self.update_every, -bound), bound)
        warm = min(1.0, self._batches / self._warmup_batches) if self._warmup_batches else 1.0
        return warm * 2.0 * self.strength * (error + self.integral * self._sum)

    def _set(self, coefficient: float) -> None:
        for layer in self._layers:
            layer.budget_coefficient.assign(coefficient / self._dense)

    def _synchronize(self) -> None:
        """On JAX the model's variables lag behind the training loop's state until this is called."""
        synchronize = getattr(self.model, "jax_state_sync", None)
        if synchronize is not None:
            synchronize()
