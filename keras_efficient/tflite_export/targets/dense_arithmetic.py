"""Our layers as the plain arithmetic that they stand for, for devices without our kernels."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_efficient.cost.observe import sublayers, wrapped_calls
from keras_efficient.layers import GatedConv2D, LayerGate
from keras_efficient.layers.multi_bit_layer import MultiBitLayer
from keras_efficient.ops.context import is_recording, record
from keras_efficient.ops.gated_conv_2d import activate

Tensor = Any


def gated_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers that decide while they run what they compute, inside `model` at any depth."""
    found = []
    for layer in sublayers(model):
        if isinstance(layer, LayerGate) or (isinstance(layer, GatedConv2D) and layer.gate is not None):
            found.append(layer)
    return found


@contextlib.contextmanager
def as_dense(model: keras.Model) -> Iterator[None]:
    """Inside, multi-bit layers and `GatedConv2D(gate=None)` are products and convolutions with constant weights.

        MultiBitDense:           y = act(x @ W + b),  W the weights that bits and scales stand for
        MultiBitConv2D:          y = act(conv(x, W) + b)
        GatedConv2D(gate=None):  y = act(conv(x, W) + b),  W and b with the batch normalisation inside

    The weights are read on entering.
    """
    plain: dict[int, Callable[[Tensor], Tensor]] = {}
    layers = [layer for layer in sublayers(model) if isinstance(layer, (GatedConv2D, MultiBitLayer))]
    for layer in layers:
        plain[id(layer)] = _multi_bit(layer) if isinstance(layer, MultiBitLayer) else _convolution(layer)

    def call(layer: keras.layers.Layer, method: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        inputs = args[0] if args else kwargs["inputs"]
        if is_recording():
            macs = float(layer.macs_when_open() if isinstance(layer, GatedConv2D) else layer.macs(inputs.shape))
            record(layer.name, macs, keras.ops.full((1,), macs, dtype="float32"))
        return plain[id(layer)](inputs)

    with wrapped_calls(layers, call):
        yield


def _multi_bit(layer: MultiBitLayer) -> Callable[[Tensor], Tensor]:
    kernel = keras.ops.convert_to_numpy(layer.float_kernel())
    bias = keras.ops.convert_to_numpy(layer.bias) if layer.use_bias else None
    return lambda x: layer.compute(layer.quantized_inputs(x, training=False), kernel, bias)


def _convolution(layer: GatedConv2D) -> Callable[[Tensor], Tensor]:
    kernel, bias = (keras.ops.convert_to_numpy(part) for part in layer.folded_weights())

    def run(x: Tensor) -> Tensor:
        y = keras.ops.conv(x, kernel, layer.strides, layer.padding, "channels_last", layer.dilation_rate) + bias
        return activate(y, layer.activation)

    return run
