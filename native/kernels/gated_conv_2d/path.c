/* Every path there is, best first, and the choice between them. */
#include "internal.h"

static const KeGatedConv2DPath *const paths[] = {
#if defined(__x86_64__)
    &ke_gated_conv_2d_avx512,
    &ke_gated_conv_2d_avx2,
#endif
#if defined(KE_NEON_FILES)
    &ke_gated_conv_2d_neon,
#endif
    &ke_gated_conv_2d_scalar,
};

const KeGatedConv2DPath *ke_gated_conv_2d_path(KeIsa isa) {
  const size_t count = sizeof(paths) / sizeof(paths[0]);
  for (size_t i = 0; i < count; i++) {
    if (paths[i]->isa <= isa) return paths[i];
  }
  return paths[count - 1];
}
