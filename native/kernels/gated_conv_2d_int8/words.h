/* Moves by permutations of 16 bytes, for AVX2: copied x are words, gathered weights stay bytes. */
#ifndef KE_GATED_CONV_2D_INT8_WORDS_H_
#define KE_GATED_CONV_2D_INT8_WORDS_H_

#include "tiled.h"

extern const KeInt8Moves ke_int8_word_moves;

#endif
