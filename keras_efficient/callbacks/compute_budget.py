"""`ComputeBudget`: trains gates until a network spends the share of its compute that was asked for."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_efficient import cost
from keras_efficient.callbacks.synchronize import synchronize
from keras_efficient.cost.observe import paths
from keras_efficient.layers.dynamic import dynamic_layers, outermost

Logs = dict[str, Any] | None


class ComputeBudget(keras.callbacks.Callback):
    """Steers the gates of a network so that it executes a target share of its dense multiply-adds.

        share = (static MACs + executed MACs of the dynamic layers, a running mean) / dense MACs
        e = share - goal,   goal: goes linearly from the first batch's share to `target` over the warm-up
        loss += coefficient * share,   coefficient = 2 strength (e + integral sum(e) + damping (change of share))

    The first term is the gradient of `strength * e^2`; the others make it a controller: the sum, taken after the
    warm-up, removes the error that the task's own gradient leaves, and damping slows gates that all fall together.
    Below the goal the coefficient is negative and opens gates. It gets closest with a learning rate that decays.

    After each batch the callback reads what the layers have executed, sets their `budget_coefficient`, and adds
    `macs_share` to the logs. The progress bar and `History` show it; put this callback before others that shall
    (`TensorBoard`, `CSVLogger`), since callbacks run in order, and behind one that restores weights when training ends
    (`EarlyStopping`). Then the coefficients return to 0. Layers that the model calls several times are charged for all
    their calls. A further `fit`, or one that goes on from a saved state, starts from the share that it finds.

    Args:
        target: Share of the dense MACs of the whole model, in (0, 1].
        strength: Weight of the squared error beside the task's loss.
        integral: Gain of the summed error per batch; 0 for none.
        damping: Gain of the change of the share per batch; 0 for none.
        warmup_epochs: How long the goal takes to the target, in epochs; default 0.4 of those that `fit` runs.
        update_every: Batches between two updates.

    Raises:
        ValueError: If an argument is out of range; when training begins, if the model has no gated layers, or what is
            never gated, gate nets included, alone costs more than the target.

    Reference: the squared form is that of Li et al., "Dynamic Dual Gating Neural Networks", ICCV 2021.
    """

    def __init__(
        self,
        target: float,
        strength: float = 20.0,
        integral: float = 0.05,
        damping: float = 10.0,
        warmup_epochs: float | None = None,
        update_every: int = 1,
    ) -> None:
        super().__init__()
        if isinstance(target, bool) or not isinstance(target, (int, float, np.floating)) or not 0 < target <= 1:
            raise ValueError(f"Invalid value for argument `target`. Expected a share in (0, 1]. Received: {target!r}")
        gains = {"strength": strength, "integral": integral, "damping": damping, "warmup_epochs": warmup_epochs or 0.0}
        for name, value in gains.items():
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
        self.damping = float(damping)
        self.warmup_epochs = warmup_epochs
        self.update_every = update_every

    def on_train_begin(self, logs: Logs = None) -> None:
        synchronize(self.model)
        self._layers = dynamic_layers(self.model)
        if not any(layer.gate is not None for layer in self._layers):
            raise ValueError(
                "`ComputeBudget` expected a model with gated layers, such as `GatedConv2D` or `LayerGate`. Received: "
                f"`{self.model.name}` without any"
            )
        report, names = cost.profile(self.model), paths(self.model)
        calls = {row.name: row.calls for row in report.layers}
        self._calls = {layer: calls[names[layer]] for layer in outermost(self._layers)}
        self._dense = report.macs
        self._static = self._dense - sum(count * layer.dense_macs for layer, count in self._calls.items())
        least = self._static + sum(count * layer.least_macs for layer, count in self._calls.items())
        if least > self.target * self._dense:
            raise ValueError(
                "Invalid value for argument `target`. Expected more than the share of what is never gated, "
                f"{least / self._dense:.3f} of `{self.model.name}`. Received: {self.target}"
            )
        self._first_epoch: int | None = None
        self._epoch = self._epoch_start = 0
        self._batches = self._since_update = 0
        self._start: float | None = None
        self._share = 1.0
        self._sum = 0.0
        self._set(0.0)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        if self._first_epoch is None:
            self._first_epoch = epoch
        self._epoch = epoch - self._first_epoch
        self._epoch_start = self._batches

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        # With `steps_per_execution` one call stands for several batches.
        self._since_update += self._epoch_start + batch + 1 - self._batches
        self._batches = self._epoch_start + batch + 1
        if self._since_update >= self.update_every:
            synchronize(self.model)
            self._set(self._coefficient(self._executed_share(), self._since_update))
            self._since_update = 0
        if logs is not None:
            logs["macs_share"] = self._share

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if logs is not None:
            logs["macs_share"] = self._share

    def on_train_end(self, logs: Logs = None) -> None:
        synchronize(self.model)
        self._set(0.0)

    def _executed_share(self) -> float:
        executed = sum(
            count * float(ops.convert_to_numpy(layer.executed_macs.value)) for layer, count in self._calls.items()
        )
        return (self._static + executed) / self._dense

    def _coefficient(self, share: float, batches: int) -> float:
        """Loss per unit of share, `batches` after the last one.

        The summed error is bounded, so that it cannot wind up while gates are slow.
        """
        if self._start is None:
            self._start = self._share = share
        change = (share - self._share) / batches
        self._share = share
        warm = self._warmth()
        error = share - (self._start + warm * (self.target - self._start))
        if warm >= 1.0:
            self._sum = min(max(self._sum + self.integral * error * batches, -1.0), 1.0)
        return 2.0 * self.strength * (error + self._sum + self.damping * change)

    def _warmth(self) -> float:
        """How much of the warm-up is over, in [0, 1]."""
        epochs = self.warmup_epochs
        if epochs is None:
            epochs = 0.4 * ((self.params.get("epochs") or 0) - (self._first_epoch or 0))
        if not epochs:
            return 1.0
        steps = self.params.get("steps")
        done = self._epoch + ((self._batches - self._epoch_start) / steps if steps else 0.0)
        return min(1.0, done / epochs)

    def _set(self, coefficient: float) -> None:
        for layer in self._layers:
            layer.budget_coefficient.assign(coefficient / self._dense)
