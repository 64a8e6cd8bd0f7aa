/* Unpacked weights with 512-bit vectors. */
#include <immintrin.h>

enum { kWidth = 16, kVectors = 4 };
typedef __m512 KeVector;
#define ke_load _mm512_loadu_ps
#define ke_store _mm512_storeu_ps
#define ke_set _mm512_set1_ps
#define ke_fmadd _mm512_fmadd_ps
#include "exact_body.h"

const KeMultiBitPath ke_multi_bit_exact_avx512 = {.isa = KE_ISA_AVX512, .family = KE_MULTI_BIT_EXACT, .add_tap = add_tap};
