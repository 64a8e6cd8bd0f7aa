"""The contract: ops with their reference, attributes, cost and kernel, and the context that layers run in."""

from keras_efficient.ops.attributes import Attributes, attribute, choice
from keras_efficient.ops.branch import branch
from keras_efficient.ops.context import (
    Event,
    executed_when,
    execution_mask,
    is_recording,
    is_skipping,
    record,
    recording,
    skipping,
)
from keras_efficient.ops.gate_net import gate_net
from keras_efficient.ops.gate_net_int8 import gate_net_int8
from keras_efficient.ops.gated_conv_2d import gated_conv_2d
from keras_efficient.ops.gated_conv_2d_int8 import gated_conv_2d_int8
from keras_efficient.ops.gated_depthwise_conv_2d import gated_depthwise_conv_2d
from keras_efficient.ops.multi_bit_conv_2d import multi_bit_conv_2d
from keras_efficient.ops.multi_bit_conv_2d_int8 import multi_bit_conv_2d_int8
from keras_efficient.ops.multi_bit_dense import multi_bit_dense
from keras_efficient.ops.multi_bit_dense_int8 import multi_bit_dense_int8
from keras_efficient.ops.registry import Argument, Cost, Op, get_op, load_plugins, register_op, registered_ops

BUILTIN = (
    gated_conv_2d,
    gated_conv_2d_int8,
    gated_depthwise_conv_2d,
    multi_bit_dense,
    multi_bit_conv_2d,
    multi_bit_conv_2d_int8,
    multi_bit_dense_int8,
    gate_net,
    gate_net_int8,
)

__all__ = [
    "BUILTIN",
    "Argument",
    "Attributes",
    "Cost",
    "Event",
    "Op",
    "attribute",
    "branch",
    "choice",
    "executed_when",
    "execution_mask",
    "gate_net",
    "gate_net_int8",
    "gated_conv_2d",
    "gated_conv_2d_int8",
    "gated_depthwise_conv_2d",
    "get_op",
    "is_recording",
    "is_skipping",
    "load_plugins",
    "multi_bit_conv_2d",
    "multi_bit_conv_2d_int8",
    "multi_bit_dense",
    "multi_bit_dense_int8",
    "record",
    "recording",
    "register_op",
    "registered_ops",
    "skipping",
]
