"""Networks that spend compute only where it is needed, from `model.add` in Keras to milliseconds on a device."""

__version__ = "0.1.0"
