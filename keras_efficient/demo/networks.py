"""The networks of the demo: one chain of convolutions, static or dynamic."""

import dataclasses
from typing import Any

import keras
from keras import layers

from keras_efficient.layers import EarlyExit, GatedConv2D
from keras_efficient.models import MultiExit
from keras_efficient.ops.macs import conv_macs, dense_macs

Tensor = Any


@dataclasses.dataclass(frozen=True)
class Topology:
    """A plain network: 3 x 3 convolutions with batch normalisation and ReLU, average pooling, one dense layer.

    Attributes:
        input_shape: `(height, width, channels)`.
        num_classes: Number of logits.
        convolutions: `(width, stride, exit behind it)` of each convolution; the exits are those of the dynamic network.
    """

    input_shape: tuple[int, int, int]
    num_classes: int
    convolutions: tuple[tuple[int, int, bool], ...]

    def narrowed(self, factor: float) -> "Topology":
        """The same network with all widths times `factor`, at least 2 channels each."""
        narrow = tuple((max(2, round(width * factor)), stride, ends) for width, stride, ends in self.convolutions)
        return dataclasses.replace(self, convolutions=narrow)


def static_network(topology: Topology, name: str = "static") -> keras.Model:
    """The network that a user would train without this package."""
    x = inputs = keras.Input(topology.input_shape, name="image")
    for width, stride, _ in topology.convolutions:
        x = _convolution(x, width, stride)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(topology.num_classes)(x), name=name)


def dynamic_network(topology: Topology, head: keras.layers.Layer | None = None, name: str = "dynamic") -> MultiExit:
    """The same network with exits, and with gates on every convolution but the first.

    Args:
        topology: Convolutions, and where exits stand.
        head: Layer from pooled features to logits at the end of the network; a `Dense` where None.
        name: Of the model.
    """
    x = inputs = keras.Input(topology.input_shape, name="image")
    gate: Tensor = None
    exits = 0
    for number, (width, stride, ends) in enumerate(topology.convolutions):
        if number == 0:
            x = _convolution(x, width, stride)
            continue
        listening: dict[str, Tensor] = {} if gate is None else {"input_gate": gate}
        x, gate = GatedConv2D(
            width,
            3,
            stride,
            padding="same",
            activation="relu",
            use_bias=False,
            batch_normalization=True,
            momentum=MOMENTUM,
            return_gate=True,
            name=f"gated_conv_{number + 1}",
        )(x, **listening)
        if ends:
            exits += 1
            gate = None  # a stage hands on its features alone
            x = EarlyExit(topology.num_classes, "average_max", EXIT_UNITS, name=f"early_exit_{exits}")(x)
    x = layers.GlobalAveragePooling2D()(x)
    head = head or layers.Dense(topology.num_classes)
    return MultiExit.from_model(keras.Model(inputs, head(x), name=name))


def narrowed_to(topology: Topology, macs: float) -> Topology:
    """The narrowest version of a topology with at least that many MACs, so that it is never cheaper than asked for."""
    low, high = 0.0, 1.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if macs_of(topology.narrowed(middle)) >= macs else (middle, high)
    return topology.narrowed(high)


def macs_of(topology: Topology) -> float:
    """Multiply-adds per image of the static network."""
    height, width, channels = topology.input_shape
    total = 0.0
    for filters, stride, _ in topology.convolutions:
        height, width = -(-height // stride), -(-width // stride)
        total += conv_macs((height, width), (3, 3), channels, filters)
        channels = filters
    return float(total + dense_macs(channels, topology.num_classes))


EXIT_UNITS = 32  # of the hidden layer of a label unit
MOMENTUM = 0.9  # of the running statistics: small data sets have few steps


def _convolution(x: Tensor, width: int, stride: int) -> Tensor:
    x = layers.Conv2D(width, 3, stride, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=MOMENTUM)(x))
