"""Weights from one layer to another of its kind."""

import keras


def copy_all_weights(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """The weights of a layer or model to one of the same kind, and whatever its layers derive from them."""
    target.set_weights(source.get_weights())
    for part in target._flatten_layers():
        if isinstance(part, keras.layers.Normalization) and part.built:
            part.finalize_state()
