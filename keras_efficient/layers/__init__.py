"""What people `model.add`: layers that spend compute only where an input needs it."""

from keras_efficient.layers.dynamic import DynamicLayer
from keras_efficient.layers.early_exit import EarlyExit
from keras_efficient.layers.exit_features import EXIT_FEATURES, exit_features
from keras_efficient.layers.gated_conv_2d import GatedConv2D
from keras_efficient.layers.layer_gate import LayerGate
from keras_efficient.layers.multi_bit_dense import MultiBitDense

__all__ = ["EXIT_FEATURES", "DynamicLayer", "EarlyExit", "GatedConv2D", "LayerGate", "MultiBitDense", "exit_features"]
