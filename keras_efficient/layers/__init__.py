"""What people `model.add`: layers that spend compute only where an input needs it."""

from typing import Any

from keras_efficient.layers.batch_shaping import BatchShaping
from keras_efficient.layers.dynamic import DynamicLayer
from keras_efficient.layers.early_exit import EarlyExit
from keras_efficient.layers.exit_features import EXIT_FEATURES, exit_features
from keras_efficient.layers.filter_sharing import FilterSharing
from keras_efficient.layers.filter_sharing_conv_2d import FilterSharingConv2D
from keras_efficient.layers.filter_sharing_dense import FilterSharingDense
from keras_efficient.layers.filter_sharing_normalization import TaskBatchNormalization
from keras_efficient.layers.gated_conv_2d import GatedConv2D
from keras_efficient.layers.gated_dense import GatedDense
from keras_efficient.layers.gated_depthwise_conv_2d import GatedDepthwiseConv2D
from keras_efficient.layers.glimpse_cell import GlimpseCell
from keras_efficient.layers.glimpse_sensor import GlimpseSensor
from keras_efficient.layers.guided_cell import GuidedCell
from keras_efficient.layers.layer_gate import LayerGate
from keras_efficient.layers.multi_bit_conv_2d import MultiBitConv2D
from keras_efficient.layers.multi_bit_dense import MultiBitDense

__all__ = [
    "EXIT_FEATURES",
    "BatchShaping",
    "DynamicLayer",
    "EarlyExit",
    "FilterSharing",
    "FilterSharingConv2D",
    "FilterSharingDense",
    "GatedConv2D",
    "GatedDense",
    "GatedDepthwiseConv2D",
    "GlimpseCell",
    "GlimpseSensor",
    "GuidedAttention",
    "GuidedCell",
    "LayerGate",
    "MultiBitConv2D",
    "MultiBitDense",
    "TaskBatchNormalization",
    "exit_features",
]


def __getattr__(name: str) -> Any:
    if name == "GuidedAttention":  # a whole network, which lives a floor higher
        from keras_efficient.models import GuidedAttention

        return GuidedAttention
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
