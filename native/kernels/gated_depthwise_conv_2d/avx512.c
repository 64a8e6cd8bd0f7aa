#define VEC 16
#include "vectors.h"

#include "rows.h"

const KeDepthwisePath ke_depthwise_avx512 = {KE_ISA_AVX512, rows};
