/* Unpacked weights with 256-bit vectors. */
#include <immintrin.h>

enum { kWidth = 8, kVectors = 2 };
typedef __m256 KeVector;
#define ke_load _mm256_loadu_ps
#define ke_store _mm256_storeu_ps
#define ke_set _mm256_set1_ps
#define ke_fmadd _mm256_fmadd_ps
#include "exact_body.h"

const KeMultiBitPath ke_multi_bit_exact_avx2 = {.isa = KE_ISA_AVX2, .family = KE_MULTI_BIT_EXACT, .add_tap = add_tap};
