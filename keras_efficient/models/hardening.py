"""What follows the training of gates: they stop moving, and batch normalisation learns what is left of its inputs."""

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from keras_efficient.cost.observe import sublayers
from keras_efficient.layers.dynamic import dynamic_layers


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
