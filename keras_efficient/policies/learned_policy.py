"""A small network that decides when to leave: what `ExitPolicyTrainer` returns."""

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from keras_efficient.ops.macs import dense_macs
from keras_efficient.policies.arguments import check_exit_index, check_hidden_units, check_integer
from keras_efficient.policies.exit_policy import ExitPolicy

_SMALLEST = 1e-3


@keras.saving.register_keras_serializable(package="keras_efficient")
class LearnedPolicy(ExitPolicy):
    """A multilayer perceptron on the standardised features of an exit, one network for all exits.

    With `x` the `spread_features`, followed by the logarithm of the trade-off where the policy takes one, and `k` the
    exit,

        h_1 = relu((x - mean_k) * scale_k @ W_1 + b_1k);   h_i = relu(h_{i-1} @ W_i + b_i);   score = h_L @ w + b

    The first layer's bias belongs to the exit, as if a one-hot exit index were a further input. Mean and scale are
    weights, so the layer takes raw features, and is saved and exported whole. A policy made by hand has random weights;
    `ExitPolicyTrainer.fit` and `PolicyGradient.fit` make useful ones.

    Args:
        num_exits: Number of exits of the network, at least 2.
        hidden_units: Width of each hidden layer; at least one.
        **kwargs: `num_features`, `trade_off_range` and `default_trade_off` of `ExitPolicy`, and those of a Keras layer.
    """

    def __init__(self, num_exits: int, hidden_units: Sequence[int] = (32,), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_exits = check_integer("num_exits", num_exits, 2)
        self.hidden_units = check_hidden_units(hidden_units)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        inputs, exits = self.num_features + self.takes_trade_off, self.num_exits - 1
        self.mean = self.add_weight(shape=(exits, inputs), initializer="zeros", trainable=False, name="mean")
        self.scale = self.add_weight(shape=(exits, inputs), initializer="ones", trainable=False, name="scale")
        self.kernels, self.biases = [], []
        for i, (wide, units) in enumerate(itertools.pairwise((inputs, *self.hidden_units, 1))):
            bias_shape = (exits, units) if i == 0 else (units,)
            self.kernels.append(self.add_weight(shape=(wide, units), initializer="glorot_uniform", name=f"kernel_{i}"))
            self.biases.append(self.add_weight(shape=bias_shape, initializer="zeros", name=f"bias_{i}"))

    def call(self, features: Any, exit_index: int, trade_off: Any = None) -> Any:
        check_exit_index(exit_index, self.num_exits)
        if exit_index == self.num_exits - 1:
            return ops.ones_like(features[:, 0])
        features = spread_features(features)
        if trade_off is not None:
            features = ops.concatenate([features, ops.log(ops.reshape(trade_off, (-1, 1)))], axis=-1)
        self.record_macs(sum(dense_macs(*kernel.shape) for kernel in self.kernels))
        return self._network(features, self.mean[exit_index], self.scale[exit_index], self.biases[0][exit_index])

    def scores(self, features: Any, trade_off: Any = None) -> Any:
        """The scores of all exits but the last at once, for training.

        Args:
            features: `[B, K, num_features]`, from `spread_features`.
            trade_off: `[B]`, or None.

        Returns:
            `[B, K - 1]`.
        """
        features = features[:, :-1]
        if trade_off is not None:
            price = ops.log(ops.reshape(trade_off, (-1, 1, 1)))
            features = ops.concatenate([features, ops.zeros_like(features[..., :1]) + price], axis=-1)
        return self._network(features, self.mean, self.scale, self.biases[0])

    def _network(self, inputs: Any, mean: Any, scale: Any, first_bias: Any) -> Any:
        hidden = ops.matmul((inputs - mean) * scale, self.kernels[0]) + first_bias
        for kernel, bias in zip(self.kernels[1:], self.biases[1:], strict=True):
            hidden = ops.matmul(ops.relu(hidden), kernel) + bias
        return ops.squeeze(hidden, axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_exits": self.num_exits, "hidden_units": list(self.hidden_units)}

    @classmethod
    def from_arrays(
        cls, mean: ArrayLike, scale: ArrayLike, layers: Sequence[tuple[ArrayLike, ArrayLike]], **kwargs: Any
    ) -> "LearnedPolicy":
        """Makes a policy from trained numbers.

        Args:
            mean: `[K - 1, D]`, subtracted from the inputs of each exit but the last: spread features, the logarithm of
                the trade-off counted where there is a `trade_off_range`.
            scale: `[K - 1, D]`, multiplied after that.
            layers: `(kernel, bias)` of each dense layer, the first bias `[K - 1, units]`, the last layer of one unit.
            **kwargs: Arguments of the constructor but those that the arrays tell.
        """
        mean = np.asarray(mean)
        hidden_units = [np.shape(kernel)[1] for kernel, _ in layers[:-1]]
        width = mean.shape[1] - (kwargs.get("trade_off_range") is not None)
        policy = cls(num_exits=len(mean) + 1, hidden_units=hidden_units, num_features=width, **kwargs)
        policy.build((None, width))
        policy.mean.assign(mean)
        policy.scale.assign(np.asarray(scale))
        for kernel, bias, arrays in zip(policy.kernels, policy.biases, layers, strict=True):
            kernel.assign(np.asarray(arrays[0]))
            bias.assign(np.asarray(arrays[1]))
        return policy


def spread_features(features: Any) -> Any:
    """Features `[..., F]` as a small network learns best from them.

    Confidence `c` and margin `m` become `-log(1 - c)` and `-log(1 - m)`, entropy `e` becomes `log(e)`, each with 0.001
    for what is smaller; the others stay. Most inputs are sure at most exits: this tells 0.99 from 0.999, which is where
    decisions lie when the trade-off is small.
    """
    confidence, entropy, margin = (features[..., i : i + 1] for i in range(3))
    sure = [
        -ops.log(ops.maximum(1.0 - confidence, _SMALLEST)),
        ops.log(ops.maximum(entropy, _SMALLEST)),
        -ops.log(ops.maximum(1.0 - margin, _SMALLEST)),
    ]
    return ops.concatenate([*sure, features[..., 3:]], axis=-1)
