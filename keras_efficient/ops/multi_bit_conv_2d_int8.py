"""`ke.multi_bit_conv_2d_int8`: the multi-bit convolution between int8 tensors, see `ops.multi_bit_int8`."""

import dataclasses

from keras_efficient.ops.int8 import Int8InputAndOutput
from keras_efficient.ops.multi_bit_conv_2d import MultiBitConv2DAttributes, multi_bit_conv_2d
from keras_efficient.ops.multi_bit_int8 import registered_between_integers


@dataclasses.dataclass(frozen=True)
class MultiBitConv2DInt8Attributes(Int8InputAndOutput, MultiBitConv2DAttributes):
    """Those of `ke.multi_bit_conv_2d`, and what the integers stand for."""


multi_bit_conv_2d_int8 = registered_between_integers(multi_bit_conv_2d, MultiBitConv2DInt8Attributes)
