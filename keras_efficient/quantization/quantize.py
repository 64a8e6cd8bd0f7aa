"""`quantize`: the dense and convolutional layers of a trained model as multi-bit ones."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_efficient.layers import MultiBitConv2D, MultiBitDense
from keras_efficient.quantization.multi_bit_model import MultiBitModel


def quantize(model: keras.Model, bits: int = 6, groups: Any = None) -> MultiBitModel:
    """x"""
    structures = dict(groups or {})

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if type(layer) is keras.layers.Conv2D:
            return MultiBitConv2D.from_conv(layer, bits, structures.get(layer.name, "pixelwise"), adaptive=True)
        if type(layer) is keras.layers.Dense:
            return MultiBitDense.from_dense(layer, bits, structures.get(layer.name), adaptive=True)
        return layer.__class__.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone)
    for old, new in zip(model.layers, copy.layers):
        if type(old) not in (keras.layers.Conv2D, keras.layers.Dense):
            new.set_weights(old.get_weights())
    return MultiBitModel(copy.inputs, copy.outputs[0], name=model.name)
