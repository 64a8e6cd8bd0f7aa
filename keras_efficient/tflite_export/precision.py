"""Models for files, which compute in float32."""

from typing import Any

import keras


def in_float32(model: keras.Model) -> keras.Model:
    """The model itself, or a float32 copy with the same weights where some layer computes in another precision."""
    policies = {layer.dtype_policy.name for layer in model._flatten_layers() if layer.dtype_policy is not None}
    if all(name == "float32" for name in policies):
        return model
    config = keras.saving.serialize_keras_object(model)
    copy = keras.saving.deserialize_keras_object(_replace_policies(config))
    copy.set_weights(model.get_weights())
    return copy


def _replace_policies(config: Any) -> Any:
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {"name": "float32"}}
        return {key: _replace_policies(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_replace_policies(value) for value in config)
    return config
