"""A multi-bit model with other settings of its layers and the same weights."""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_efficient.layers.copying import copy_all_weights
from keras_efficient.layers.multi_bit_layer import MAX_ACTIVATION_BITS, MultiBitLayer
from keras_efficient.quantization.multi_bit_model import MultiBitModel, multi_bit_layers

Changes = Callable[[MultiBitLayer], dict[str, Any]]


def finished(model: keras.Model) -> keras.Model:
    """A plain Keras model with the bases of a `MultiBitModel`, without the state that training them needs.

    Scales and bias of its layers train with any optimizer; signs stay.

    Raises:
        ValueError: If the model has no multi-bit layers.
    """
    inputs, outputs = _rebuilt(model, lambda _: {"adaptive": False})
    return keras.Model(inputs, outputs, name=model.name)


def quantize_activations(model: keras.Model, bits: int | Mapping[str, int] = 2) -> MultiBitModel:
    """The model with multi-bit inputs of its multi-bit layers; train it on in the phase `latent`, levels follow.

    First train bases to their bit-width, then switch the activations over, as in the paper:

    >>> model = quantize_activations(model, 2)
    >>> model.compile("adam", loss)
    >>> model.phase = "latent"
    >>> model.fit(x, y, epochs=10)

    Args:
        model: A model with multi-bit layers.
        bits: Bits of the inputs, 0 (as they are) to 3: one number for all multi-bit layers but the first, whose inputs
            stay as they are, or numbers by layer name.

    Raises:
        ValueError: If the model has no multi-bit layers, a name is none of theirs, or a number is out of range.
    """
    layers = _layers(model)
    names = [layer.name for layer in layers]
    by_name = dict(bits) if isinstance(bits, Mapping) else dict.fromkeys(names[1:], bits)
    for name, count in by_name.items():
        if name not in names:
            raise ValueError(
                f"Invalid value for argument `bits`. Expected names of multi-bit layers, {names}. Received: {name!r}"
            )
        if isinstance(count, bool) or count not in range(MAX_ACTIVATION_BITS + 1):
            raise ValueError(
                f"Invalid value for argument `bits`. Expected 0 to {MAX_ACTIVATION_BITS}. Received: {count!r}"
            )
    tensors = _rebuilt(
        model, lambda layer: {"adaptive": True, "activation_bits": by_name.get(layer.name, layer.activation_bits)}
    )
    return MultiBitModel(*tensors, name=model.name)


def nested(model: keras.Model) -> keras.Model:
    """The model with a further input `max_bits`, int32 `[B]`: how many bases of each group count, the first ones.

    Bases are sorted, the largest scale first, so the first ones are the best to keep; groups of one basis lose nothing
    at `max_bits` 1. An exported file takes `max_bits` `[1]` with every run.

    Raises:
        ValueError: If the model has no multi-bit layers, or more than one input.
    """
    for layer in _layers(model):
        layer.compact()
    if len(model.inputs) != 1:
        raise ValueError(
            f"Invalid value for argument `model`. Expected a model with one input. Received: {len(model.inputs)} inputs"
        )
    inputs, outputs = _rebuilt(model, lambda _: {"adaptive": False}, with_max_bits=True)
    return keras.Model(inputs, outputs, name=model.name)


def _layers(model: keras.Model) -> list[MultiBitLayer]:
    layers = multi_bit_layers(model)
    if not layers:
        raise ValueError(
            "Invalid value for argument `model`. Expected a model with multi-bit layers, as `quantization.quantize` "
            f"makes it. Received: {model.name!r}"
        )
    return layers


def _rebuilt(model: keras.Model, changes: Changes, with_max_bits: bool = False) -> tuple[Any, Any]:
    """Inputs and outputs of a copy whose multi-bit layers have their configuration changed, weights and all."""
    _layers(model)
    pairs: list[tuple[Any, Any]] = []
    sources, results = list(model.inputs), list(model.outputs)
    if with_max_bits:  # an input that nothing reads yet must lead to an output, or a functional model refuses it
        sources.append(keras.Input((), dtype="int32", name="max_bits"))
        results.append(keras.layers.Identity(dtype="int32")(sources[-1]))
    fresh = [keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name) for tensor in sources]

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        more = changes(layer) if isinstance(layer, MultiBitLayer) else {}
        copy = layer.__class__.from_config({**layer.get_config(), **more})
        pairs.append((layer, copy))
        return copy

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        if with_max_bits and isinstance(layer, MultiBitLayer):
            kwargs["max_bits"] = fresh[-1]
        return layer(*args, **kwargs)

    whole = keras.Model(sources, results)
    copy = keras.models.clone_model(whole, input_tensors=fresh, clone_function=clone, call_function=call)
    for old, new in pairs:
        if isinstance(old, MultiBitLayer):
            new.take_weights(old)
        else:
            copy_all_weights(old, new)
    taken, given = ends(model)
    outputs = keras.tree.pack_sequence_as(given, list(copy.outputs)[: len(model.outputs)])
    return fresh if with_max_bits else keras.tree.pack_sequence_as(taken, fresh), outputs


def ends(model: keras.Model) -> tuple[Any, Any]:
    """Symbolic inputs and outputs of a functional or sequential model, in the structure that it takes and gives."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0], model.outputs[0]
    return model.input, model.output
