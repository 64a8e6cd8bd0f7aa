"""What follows the training of gates: they stop moving, and batch normalisation learns what is left of its inputs."""

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops
from numpy.typing import ArrayLike

from keras_efficient.cost.observe import sublayers
from keras_efficient.layers import LayerGate
from keras_efficient.layers.dynamic import dynamic_layers
from keras_efficient.models.gate_statistics import gate_statistics


def harden(model: keras.Model, batches: Iterable[Any], threshold: float | None = None) -> keras.Model:
    """Makes the gates of a trained network final.

    Gates read features, which fine-tuning behind it changes: look at the share again, or fine-tune before, with a
    `ComputeBudget` that has no warm-up.

    1. Gates at or below `threshold` count as shut (where one is given: `gate_threshold` of every layer with `"relu1"`
       gates; binary concrete ones decide at 0).
    2. Gate nets are frozen (`DynamicLayer.freeze`), in files of the model too, and decide as in inference; weights
       that train on are fitted to the decisions, and learn nothing through them.
    3. The statistics of batch normalisation are measured anew, `reestimate_batch_normalization`: those of training lag
       behind gates that were still closing.

    Args:
        model: Built model with gated layers; changed in place.
        batches: Batches of inputs as the network is trained with, about 10,000 inputs; labels are not needed.
        threshold: In [0, 1), or None to leave it.

    Returns:
        The model.

    Raises:
        ValueError: If the model has no gates, the threshold is out of range or there is no gate that has one, or there
            is no batch.
    """
    layers = [layer for layer in dynamic_layers(model) if layer.gate is not None]
    if not layers:
        raise ValueError(
            "Invalid value for argument `model`. Expected a model with gated layers. "
            f"Received: '{model.name}' without any"
        )
    if threshold is not None and not 0 <= threshold < 1:
        raise ValueError(
            f"Invalid value for argument `threshold`. Expected a number in [0, 1) or None. Received: {threshold!r}"
        )
    if threshold is not None:
        with_threshold = [layer for layer in layers if layer.gate == "relu1"]
        if not with_threshold:
            raise ValueError(
                "Invalid value for argument `threshold`. Expected None for a model whose gates are binary concrete "
                f"ones. Received: {threshold!r}"
            )
        for layer in with_threshold:
            layer.gate_threshold = float(threshold)
    for layer in layers:
        layer.freeze("gate")
    reestimate_batch_normalization(model, batches)
    return model


def remove_idle_branches(model: keras.Model, x: ArrayLike) -> list[str]:
    """Layer gates that are open for every input of `x` lose their branch (`LayerGate(branch=False)`).

    The network gives the same numbers, for other inputs too. An input for which such a gate is shut is computed all the
    same, so it costs more than before; every input is spared an IF, some microseconds in a file.

    Args:
        model: Built model of one input with gated layers, behind `harden`; changed in place.
        x: `[N, ...]` inputs, some thousands, so that a gate which is ever shut is seen to be.

    Returns:
        The paths of these gates in the model.

    Raises:
        ValueError: If the model has no gates, or there are no inputs.
    """
    found = gate_statistics(model, x)
    layers = [layer for layer in dynamic_layers(model) if layer.gate is not None]
    names = []
    for layer, statistics in zip(layers, found, strict=True):
        if isinstance(layer, LayerGate) and layer.branch and statistics.rates == (1.0,):
            layer.branch = False
            names.append(statistics.name)
    return names


def reestimate_batch_normalization(model: keras.Model, batches: Iterable[Any]) -> None:
    """Sets the moving statistics of all batch normalisations to the mean of those of the batches.

    Nothing else changes: weights stay, and dropout and other layers run as in training.

    Args:
        model: Built model; without batch normalisation nothing happens.
        batches: Batches `[B, ...]` of inputs.

    Raises:
        ValueError: If there is no batch.
    """
    layers = [layer for layer in sublayers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.momentum for layer in layers]
    seen = 0
    try:
        for batch in batches:
            for layer in layers:
                layer.momentum = seen / (seen + 1)  # the mean so far, weighed with the batches that it is made of
            model(ops.convert_to_tensor(batch), training=True)
            seen += 1
    finally:
        for layer, momentum in zip(layers, before, strict=True):
            layer.momentum = momentum
    if not seen:
        raise ValueError("Invalid value for argument `batches`. Expected at least one batch. Received: none")
