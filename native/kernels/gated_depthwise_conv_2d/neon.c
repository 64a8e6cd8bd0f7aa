#include "cpu.h"

#if defined(KE_NEON_FILES)

#include <arm_neon.h>

#define VEC 4
#include "vectors.h"

static inline vec vec_multiply_add(vec a, vec b, vec c) {
#if defined(__aarch64__)
  return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c; /* not all 32-bit processors with NEON have the fused one */
#endif
}

#include "rows.h"

const KeDepthwisePath ke_depthwise_neon = {KE_ISA_NEON, rows};

#endif
