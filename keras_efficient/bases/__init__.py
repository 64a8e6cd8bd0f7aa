"""Groups of weights as sums of scaled sign vectors: the mathematics, without layers and without state.

A tensor of weights is cut into R groups of n. A group is `w = sum_i scales[i] * signs[i]`, a basis being a scale (a
"coordinate") with its signs. Codes `[R, n]` uint8 hold the signs of up to eight bases: bit i is 1 where `signs[i]` is
-1. A basis is live where its scale is not 0; the bits of others mean nothing.

Source: Qu et al., "Adaptive Loss-aware Quantization for Multi-bit Networks", CVPR 2020.
"""

from keras_efficient.bases.codes import MAX_BASES, assigned, fitted, flipped_positive, reconstructed, signs
from keras_efficient.bases.groups import (
    SMALLEST,
    STRUCTURES,
    Grouping,
    conv_grouping,
    default_group_size,
    dense_grouping,
)
from keras_efficient.bases.levels import first_levels, fitted_levels
from keras_efficient.bases.moments import BETA_1, BETA_2, amsgrad, hessian, updated
from keras_efficient.bases.packing import LiveBases, packed, sorted_bases, unpacked
from keras_efficient.bases.sketching import sketched
from keras_efficient.bases.steps import MODES, GroupState, importance, step

__all__ = [
    "BETA_1",
    "BETA_2",
    "MAX_BASES",
    "MODES",
    "SMALLEST",
    "STRUCTURES",
    "GroupState",
    "Grouping",
    "LiveBases",
    "amsgrad",
    "assigned",
    "conv_grouping",
    "default_group_size",
    "dense_grouping",
    "first_levels",
    "fitted",
    "fitted_levels",
    "flipped_positive",
    "hessian",
    "importance",
    "packed",
    "reconstructed",
    "signs",
    "sketched",
    "sorted_bases",
    "step",
    "unpacked",
    "updated",
]
