"""Networks that spend compute only where it is needed, from `model.add` in Keras to milliseconds on a device.

Importing the package registers its layers, models and policies with Keras, so that saved models load. It imports no
TensorFlow but what Keras itself does for its backend; `tflite_export`, `testing` and `datasets` are imported on first
use.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

from keras_efficient import callbacks, cost, layers, models, ops, policies, quantization
from keras_efficient.ops import register_op

_ON_FIRST_USE = ("datasets", "testing", "tflite_export")

__all__ = ["callbacks", "cost", "layers", "models", "ops", "policies", "quantization", "register_op", *_ON_FIRST_USE]


def __getattr__(name: str) -> Any:
    if name in _ON_FIRST_USE:
        return importlib.import_module(f"keras_efficient.{name}")
    raise AttributeError(f"module 'keras_efficient' has no attribute {name!r}")
