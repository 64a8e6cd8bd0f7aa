/* Moves by permutations of bytes, for processors with VBMI and VBMI2. */
#ifndef KE_GATED_CONV_2D_INT8_BYTES_H_
#define KE_GATED_CONV_2D_INT8_BYTES_H_

#include "tiled.h"

extern const KeInt8Moves ke_int8_byte_moves;

#endif
