"""`ke.multi_bit_dense_int8`: the multi-bit dense layer between int8 tensors, see `ops.multi_bit_int8`."""

import dataclasses

from keras_efficient.ops.int8 import Int8InputAndOutput
from keras_efficient.ops.multi_bit_dense import multi_bit_dense
from keras_efficient.ops.multi_bit_int8 import registered_between_integers
from keras_efficient.ops.multi_bit_weights import MultiBitAttributes


@dataclasses.dataclass(frozen=True)
class MultiBitDenseInt8Attributes(Int8InputAndOutput, MultiBitAttributes):
    """Those of `ke.multi_bit_dense`, and what the integers stand for."""


multi_bit_dense_int8 = registered_between_integers(multi_bit_dense, MultiBitDenseInt8Attributes)
