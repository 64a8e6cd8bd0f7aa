"""The same network with equal bits everywhere: uniform quantisation-aware training, and what Keras itself offers."""

import pathlib
from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks.alq import lessons, networks
from keras_efficient import datasets

Tensor = Any


def quantized_kernel(kernel: Tensor, step: Tensor, bits: int) -> Tensor:
    """`step (k + 1/2)`, k from `-2^(bits-1)` to `2^(bits-1) - 1`, straight through, with a step per channel to learn.

    In the manner of Esser et al., "Learned Step Size Quantization", ICLR 2020, with levels half a step off zero, so
    that one bit is a sign with a scale.
    """
    half = 2.0 ** (bits - 1)
    slow = 1.0 / float(np.sqrt(np.prod(kernel.shape[:-1]) * half))
    step = step * slow + ops.stop_gradient(step * (1.0 - slow))
    place = ops.clip(kernel / step - 0.5, -half, half - 1.0)
    return step * (place + ops.stop_gradient(ops.round(place) - place) + 0.5)


class _Uniform:
    """A layer that computes with `quantized_kernel`."""

    uniform_bits = 0

    def start(self, bits: int) -> None:
        """Chooses bits and the steps to begin with, from the kernel."""
        self.uniform_bits = bits
        kernel = np.asarray(ops.convert_to_numpy(self.kernel))
        mean = np.abs(kernel).mean(axis=tuple(range(kernel.ndim - 1)))
        self.step.assign(2.0 * mean / np.sqrt(2.0 ** (bits - 1)) if bits > 1 else 2.0 * mean)

    def weights_now(self) -> Tensor:
        return quantized_kernel(self.kernel, self.step, self.uniform_bits)

    def add_step(self, channels: int) -> None:
        self.step = self.add_weight(name="step", shape=(channels,), initializer="ones")


class UniformDense(_Uniform, keras.layers.Dense):
    """A dense layer of uniform bits."""

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.built = False
        self.add_step(self.units)
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        y = ops.matmul(inputs, self.weights_now())
        return self.activation(y + self.bias if self.use_bias else y)


class UniformConv2D(_Uniform, keras.layers.Conv2D):
    """A convolution of uniform bits."""

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.add_step(self.filters)

    def call(self, inputs: Tensor) -> Tensor:
        y = ops.conv(inputs, self.weights_now(), self.strides, self.padding, "channels_last", self.dilation_rate)
        return self.activation(y + self.bias if self.use_bias else y)


def uniform(model: keras.Model, bits: int) -> keras.Model:
    """The network with every dense and convolutional layer at `bits` bits."""
    kinds = {keras.layers.Dense: UniformDense, keras.layers.Conv2D: UniformConv2D}
    pairs: list[tuple[Any, Any]] = []

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        pairs.append((layer, kinds.get(type(layer), type(layer)).from_config(layer.get_config())))
        return pairs[-1][1]

    copy = keras.models.clone_model(model, clone_function=clone)
    for old, new in pairs:
        if isinstance(new, _Uniform):
            new.kernel.assign(ops.convert_to_numpy(old.kernel))  # type: ignore[attr-defined]
            if old.use_bias:  # on JAX a shared array would be lost in training
                new.bias.assign(ops.convert_to_numpy(old.bias))  # type: ignore[attr-defined]
            new.start(bits)
        else:
            new.set_weights(old.get_weights())
    return copy


def uniform_figures(
    model: keras.Model,
    dataset: datasets.Dataset,
    bits: int,
    epochs: int,
    work: pathlib.Path,
    taught: bool = False,
    with_backups: bool = True,
) -> dict[str, float]:
    """Accuracy and bytes of the network trained on at `bits` bits from its float weights, with it as teacher if so."""
    keras.utils.set_random_seed(bits)
    network = uniform(model, bits)
    data = lessons.lessons(dataset, bits, model if taught else None)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, epochs * len(data.batches))
    network.compile(keras.optimizers.Adam(rate), data.loss, metrics=[data.accuracy])
    backups = networks.backups(work / f"uniform_{bits}", with_backups)
    network.fit(
        data.batches,
        epochs=epochs,
        validation_data=data.validation,
        validation_batch_size=500,
        callbacks=backups,
        verbose=2,
    )
    layers = [layer for layer in network.layers if isinstance(layer, _Uniform)]
    kernels = sum(float(np.prod(layer.kernel.shape)) for layer in layers)  # type: ignore[attr-defined]
    others = sum(float(np.prod(v.shape)) for v in network.trainable_variables) - kernels
    return {"bits": bits, "bytes": kernels * bits / 8 + 4 * others, **networks.accuracies(network, dataset)}


def keras_figures(path: pathlib.Path, dataset: datasets.Dataset, mode: str) -> dict[str, Any]:
    """Accuracy and bytes after `model.quantize(mode)` of Keras, which takes dense layers alone."""
    model = keras.saving.load_model(path)
    model.quantize(mode)
    model.compile(loss=networks.loss(), metrics=["accuracy"])
    variables = [v for layer in model.layers for v in layer.variables if "seed" not in v.name]
    stored = sum(float(np.prod(v.shape)) * (1 if v.dtype == "int8" else 4) for v in variables)
    taken = [layer.name for layer in model.layers if getattr(layer, "quantization_mode", None)]
    return {"mode": mode, "bytes": stored, "layers": taken, **networks.accuracies(model, dataset)}
