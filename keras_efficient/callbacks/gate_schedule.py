"""`GateSchedule`: the temperature of binary concrete gates over a training."""

from typing import Any

import keras

from keras_efficient.callbacks.synchronize import synchronize
from keras_efficient.layers.dynamic import DynamicLayer, dynamic_layers


class GateSchedule(keras.callbacks.Callback):
    """Lowers the temperature of all binary concrete gates of a model, epoch by epoch.

        temperature = start * (end / start)^(epoch / (epochs - 1)),   end from then on

    A high temperature lets gradients through to gates far from their decision, a low one trains what inference does.
    `gate_temperature` is added to the logs.

    Args:
        start: In the first epoch, above 0.
        end: From epoch `epochs` on, above 0.
        epochs: How long it takes; default all epochs of the training.

    Raises:
        ValueError: If an argument is out of range; when training begins, if the model has no layer with
            `gate="binary_concrete"`.
    """

    def __init__(self, start: float = 2.0, end: float = 0.5, epochs: int | None = None) -> None:
        super().__init__()
        for name, value in {"start": start, "end": end}.items():
            if not value > 0:
                raise ValueError(f"Invalid value for argument `{name}`. Expected a number above 0. Received: {value!r}")
        if epochs is not None and (isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1):
            raise ValueError(
                f"Invalid value for argument `epochs`. Expected a positive integer or None. Received: {epochs!r}"
            )
        self.start = float(start)
        self.end = float(end)
        self.epochs = epochs
        self._layers: list[DynamicLayer] = []

    def temperature(self, epoch: int, epochs: int) -> float:
        """The temperature in epoch `epoch`, 0 for the first, where it ends with the last of `epochs`."""
        done = min(1.0, epoch / (epochs - 1)) if epochs > 1 else 1.0
        return float(self.start * (self.end / self.start) ** done)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._layers = [layer for layer in dynamic_layers(self.model) if layer.gate_temperature is not None]
        if not self._layers:
            raise ValueError(
                '`GateSchedule` expected a model with layers of `gate="binary_concrete"`. Received: '
                f"`{self.model.name}` without any"
            )

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._now = self.temperature(epoch, self.epochs or int(self.params.get("epochs") or 1))
        synchronize(self.model)
        for layer in self._layers:
            layer.gate_temperature.assign(self._now)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None:
            logs["gate_temperature"] = self._now
