"""Networks made of our layers."""

from keras_efficient.models.multi_exit import MultiExit

__all__ = ["MultiExit"]
