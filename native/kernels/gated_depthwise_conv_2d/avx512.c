#include <immintrin.h>

#define VEC 16
#include "vectors.h"

static inline vec vec_multiply_add(vec a, vec b, vec c) { return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }

#include "rows.h"

const KeDepthwisePath ke_depthwise_avx512 = {KE_ISA_AVX512, rows};
