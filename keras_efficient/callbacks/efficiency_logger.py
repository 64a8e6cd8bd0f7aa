"""`EfficiencyLogger`: what a network spends, in the logs of every epoch."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_efficient import cost
from keras_efficient.cost.observe import sublayers
from keras_efficient.cost.storage import bytes_of
from keras_efficient.layers.dynamic import dynamic_layers, outermost
from keras_efficient.layers.multi_bit_layer import MultiBitLayer

Logs = dict[str, Any] | None


class EfficiencyLogger(keras.callbacks.Callback):
    """Adds multiply-adds, bits and exits to the logs, where the progress bar, `History` and TensorBoard find them.

    | key | what |
    |---|---|
    | `expected_macs` | mean MACs per input: on `data`, with hard decisions; without data in training, from the gates |
    | `macs_share_of_dense` | the same over the MACs with everything open |
    | `average_bits` | mean bits per weight of kernels and matrices, scales left out |
    | `exit_k_share` | share of `data` that leaves at exit k (a `MultiExit` with a policy) |
    | `exit_k_data_accuracy` | accuracy of exit k on `data` with labels (a `MultiExit`) |
    | `policy_accuracy` | accuracy of the exits taken on `data` with labels (a `MultiExit` with a policy) |

    Put it before callbacks that shall see these numbers, since callbacks run in order.

    Args:
        data: Inputs `[N, ...]`, or a tuple of inputs and integer labels `[N]` or `[N, 1]`, or None.
        every: Epochs between two looks; the numbers stand in the logs of those epochs only.

    Raises:
        ValueError: If `every` is not a positive integer, or labels are no class numbers.
    """

    def __init__(self, data: Any = None, every: int = 1) -> None:
        super().__init__()
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"Invalid value for argument `every`. Expected a positive integer. Received: {every!r}")
        self.x: Any = data
        self.y: Any = None
        if isinstance(data, tuple) and len(data) == 2:
            self.x, self.y = data[0], _labels(data[1])
        self.every = every

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if logs is None or (epoch + 1) % self.every:
            return
        expected, dense = self._macs()
        logs["expected_macs"] = expected
        logs["macs_share_of_dense"] = expected / dense
        logs["average_bits"] = average_bits(self.model)
        if self.x is not None and hasattr(self.model, "predict_all"):
            logs.update(self._exits())

    def _macs(self) -> tuple[float, float]:
        profile = cost.profile(self.model, self.x)
        if self.x is not None and profile.expected_macs is not None:
            return profile.expected_macs, profile.macs
        layers = outermost(dynamic_layers(self.model))
        saved = sum(layer.dense_macs - float(ops.convert_to_numpy(layer.executed_macs.value)) for layer in layers)
        return profile.macs - saved, profile.macs

    def _exits(self) -> dict[str, float]:
        model, found = self.model, {}
        if self.y is not None:
            for name, logits in model.predict_all(self.x, verbose=0).items():
                found[f"{name}_data_accuracy"] = float(np.mean(logits.argmax(axis=-1) == self.y))
        if model.policy is not None:
            logits, taken = model.predict_exits(self.x, verbose=0)
            shares = np.bincount(taken, minlength=model.num_exits) / len(taken)
            found.update({f"{name}_share": float(s) for name, s in zip(model.exit_names, shares, strict=True)})
            if self.y is not None:
                found["policy_accuracy"] = float(np.mean(logits.argmax(axis=-1) == self.y))
        return found


def _labels(labels: Any) -> np.ndarray | None:
    """Class numbers `[N]`."""
    if labels is None:
        return None
    found = np.asarray(labels)
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise ValueError(
            f"Invalid value for argument `data`. Expected class numbers [N] as labels. Received: shape {found.shape}"
        )
    return found


def average_bits(model: keras.Model) -> float:
    """Mean bits per weight over a model's kernels and matrices; those of a multi-bit layer count as it stores them."""
    total = count = 0.0
    packed: set[int] = set()
    for layer in (model, *sublayers(model)):
        if isinstance(layer, MultiBitLayer):
            total += layer.num_weights * layer.average_bits
            count += layer.num_weights
            packed.update(id(variable) for variable in layer.variables)
    for variable in model.weights:
        if id(variable) not in packed and len(variable.shape) > 1:
            total += 8 * bytes_of(variable.shape, variable.dtype)
            count += float(np.prod(variable.shape))
    return total / count if count else 0.0
