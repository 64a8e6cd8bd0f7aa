"""What a plugin author calls: one call, ten checks, the same ones that the package's own ops and layers pass."""

from keras_efficient.testing.checks import CheckFailed
from keras_efficient.testing.layer_checks import check_layer
from keras_efficient.testing.op_checks import check_op
from keras_efficient.testing.op_layer import OpLayer

__all__ = ["CheckFailed", "OpLayer", "check_layer", "check_op"]
