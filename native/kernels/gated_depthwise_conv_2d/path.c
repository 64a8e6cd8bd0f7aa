#include "internal.h"

static const KeDepthwisePath *const best_first[] = {
#if defined(__x86_64__)
    &ke_depthwise_avx512,
    &ke_depthwise_avx2,
#elif defined(KE_NEON_FILES)
    &ke_depthwise_neon,
#endif
    &ke_depthwise_scalar,
};

const KeDepthwisePath *ke_depthwise_path(KeIsa isa) {
  const KeDepthwisePath *const *path = best_first;
  while ((*path)->isa > isa) path++;
  return *path;
}
