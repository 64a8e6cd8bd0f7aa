#define VEC 8
#include "vectors.h"

#include "rows.h"

const KeDepthwisePath ke_depthwise_avx2 = {KE_ISA_AVX2, rows};
