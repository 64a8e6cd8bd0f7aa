#include "cpu.h"

#if defined(KE_NEON_FILES)

#define VEC 4
#include "vectors.h"

#include "rows.h"

const KeDepthwisePath ke_depthwise_neon = {KE_ISA_NEON, rows};

#endif
