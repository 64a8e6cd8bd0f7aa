"""What else one can do with the same multiply-adds: top-k channels, blocks dropped at random, fixed gates."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_efficient import cost
from keras_efficient.layers import GatedConv2D
from keras_efficient.layers.dynamic import dynamic_layers
from keras_efficient.models import gate_statistics
from keras_efficient.models.resnet import conv, convolution, thin_blocks

Tensor = Any
OPTIONS: dict[str, Any] = {"padding": "same", "use_bias": False, "batch_normalization": True, "gate": None}
BISECTIONS = 16
TIE = 1e-3


@keras.saving.register_keras_serializable(package="benchmarks.lcnet")
class Winners(keras.layers.Layer):
    """Keeps the `ceil(density * C)` channels of greatest saliency, times that saliency; the others are zero.

    The saliency is `relu(W mean(x) + b)` of the block's input. Reference: Gao et al., "Dynamic Channel Pruning: Feature
    Boosting and Suppression", ICLR 2019.
    """

    def __init__(self, density: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.density = density

    def build(self, shapes: Any) -> None:
        features, block_input = shapes
        self.kept = int(np.ceil(self.density * features[-1]))
        shape = (block_input[-1], features[-1])
        self.gate_kernel = self.add_weight(name="gate_kernel", shape=shape, initializer="glorot_uniform")
        self.gate_bias = self.add_weight(name="gate_bias", shape=shape[1:], initializer="ones")

    def call(self, inputs: Any) -> Tensor:
        features, block_input = inputs
        saliency = ops.relu(ops.matmul(ops.mean(block_input, axis=(1, 2)), self.gate_kernel) + self.gate_bias)
        least = ops.top_k(saliency, self.kept)[0][:, -1:]
        return features * ops.where(saliency >= least, saliency, 0.0)[:, None, None, :]

    def compute_output_shape(self, shapes: Any) -> Any:
        return shapes[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "density": self.density}


@keras.saving.register_keras_serializable(package="benchmarks.lcnet")
class RandomDrop(keras.layers.Layer):
    """Zeros with probability `1 - rate`, for each input by itself, in training and inference alike."""

    def __init__(self, rate: float, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate, self.seed = rate, seed
        self.noise = keras.random.SeedGenerator(seed)

    def call(self, x: Tensor) -> Tensor:
        drawn = keras.random.uniform((ops.shape(x)[0], 1, 1, 1), seed=self.noise)
        return x * ops.cast(drawn < self.rate, x.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


def winners(depth: int, density: float, num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """The thin network with top-k channels inside each block; its layers have the names of the dense network's."""

    def inside(h: Tensor, block_input: Tensor, name: str) -> Tensor:
        return Winners(density, name=f"{name}_winners")([h, block_input])

    return _network(depth, num_classes, input_shape, inside, lambda y, name: y, "winners")


def random_drop(depth: int, rate: float, num_classes: int, input_shape: tuple[int, int, int]) -> keras.Model:
    """The thin network whose blocks run with probability `rate`, whatever the input."""
    return _network(
        depth,
        num_classes,
        input_shape,
        lambda h, block_input, name: h,
        lambda y, name: RandomDrop(rate, seed=int(name.rsplit("_", 1)[-1]), name=f"{name}_drop")(y),
        "random_drop",
    )


def _network(
    depth: int,
    num_classes: int,
    input_shape: tuple[int, int, int],
    inside: Callable[[Tensor, Tensor, str], Tensor],
    behind: Callable[[Tensor, str], Tensor],
    name: str,
) -> keras.Model:
    x = inputs = keras.Input(input_shape, name="image")
    x = keras.layers.ReLU(name="stem")(convolution(x, 16, 3, 1, "stem"))
    blocks = thin_blocks(depth)
    for number in range(3 * blocks):
        stage, first = divmod(number, blocks)
        filters, strides = 16 * 2**stage, 2 if stage > 0 and first == 0 else 1
        block = f"block_{number + 1}"
        h = GatedConv2D(
            filters, 3, strides, activation="relu", kernel_initializer="he_normal", name=f"{block}_1", **OPTIONS
        )(x)
        h = inside(h, x, block)
        h = GatedConv2D(filters, 3, kernel_initializer="he_normal", name=f"{block}_2", **OPTIONS)(h)
        if strides != 1:
            x = conv(filters, 1, strides, f"{block}_shortcut_conv")(x)
            x = keras.layers.BatchNormalization(name=f"{block}_shortcut_bn")(x)
        x = keras.layers.ReLU(name=block)(keras.layers.Add(name=f"{block}_add")([behind(h, block), x]))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes, name="logits")(x), name=name)


def freeze_gates(model: keras.Model, x: Any, share: float) -> keras.Model:
    """Gates fixed to their mean pattern: the ones most often open, as many as `share` of the dense MACs allows.

    What is left is a statically pruned network: the same for every input.

    Args:
        model: Network with relu1 gates; changed in place.
        x: `[N, ...]` images on which the gates are watched.
        share: Of the dense MACs.
    """
    statistics = gate_statistics(model, x)
    layers = [layer for layer in dynamic_layers(model) if layer.gate is not None]
    rates = [np.nan_to_num(found.rates) * np.nan_to_num(found.reached) for found in statistics]
    values = [np.nan_to_num(found.values) for found in statistics]
    rates = [rate + TIE * value for rate, value in zip(rates, values, strict=True)]  # of equal rates the larger gate
    for layer in layers:
        layer.gate_kernel.assign(np.zeros(layer.gate_kernel.shape))

    def spent(least: float) -> float:
        for layer, rate, value in zip(layers, rates, values, strict=True):
            kept = rate >= least if len(rate) > 1 else np.ones(1, bool) if rate[0] > 0 else np.zeros(1, bool)
            layer.gate_bias.assign(np.where(kept, np.clip(value, 2 * layer.gate_threshold, 1.0), -1.0))
        found = cost.profile(model, x[:4])
        assert found.expected_macs is not None
        return found.expected_macs / found.macs

    low, high = 0.0, 1.0 + 2 * TIE
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if spent(middle) <= share else (middle, high)
    spent(high)
    return model
