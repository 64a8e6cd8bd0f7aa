"""Networks made of our layers."""

from keras_efficient.models.multi_exit import MultiExit
from keras_efficient.models.resnet import thin_resnet

__all__ = ["MultiExit", "thin_resnet"]
