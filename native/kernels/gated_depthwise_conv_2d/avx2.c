#include <immintrin.h>

#define VEC 8
#include "vectors.h"

static inline vec vec_multiply_add(vec a, vec b, vec c) { return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }

#include "rows.h"

const KeDepthwisePath ke_depthwise_avx2 = {KE_ISA_AVX2, rows};
