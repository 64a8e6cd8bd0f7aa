"""Models for files, which compute in float32."""

from typing import Any

import keras

from keras_efficient.layers.copying import copy_all_weights


def in_float32(model: keras.Model) -> keras.Model:
    """The model itself, or a float32 copy with the same weights where some layer computes in another precision.

    Raises:
        ValueError: If a layer makes others that compute in another precision whatever it is told.
    """
    if not _others(model):
        return model
    config = _in_float32(keras.saving.serialize_keras_object(model))
    known = {
        type(layer).__name__: type(layer)
        for layer in model._flatten_layers()
        if type(layer).__module__.partition(".")[0] != "keras"
    }
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # of layers that the model's layers make
    try:
        copy = keras.saving.deserialize_keras_object(config, custom_objects=known, safe_mode=False)
    finally:
        keras.config.set_dtype_policy(before)
    left = _others(copy)
    if left:
        raise ValueError(
            "Invalid value for argument `model`. Expected layers that can be rebuilt in float32. Received: "
            f"`{left[0].name}`, which computes in {left[0].dtype_policy.name}"
        )
    copy_all_weights(model, copy)
    return copy


def _others(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of another precision."""
    return [
        layer
        for layer in model._flatten_layers()
        if layer.dtype_policy is not None and layer.dtype_policy.name != "float32"
    ]


def _in_float32(config: Any) -> Any:
    """A configuration with all policies replaced, and without how the model was compiled."""
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {"name": "float32"}}
        return {key: _in_float32(value) for key, value in config.items() if key != "compile_config"}
    if isinstance(config, (list, tuple)):
        return type(config)(_in_float32(value) for value in config)
    return config
