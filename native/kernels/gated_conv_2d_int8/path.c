/* Every path there is, best first, and the choice between them. */
#include "internal.h"

static const KeInt8Path *const paths[] = {
#if defined(__x86_64__)
    &ke_gated_conv_2d_int8_avx512vnni,
    &ke_gated_conv_2d_int8_avx2,
#elif defined(__aarch64__)
    &ke_gated_conv_2d_int8_dotprod,
#endif
    &ke_gated_conv_2d_int8_scalar,
};

const KeInt8Path *ke_gated_conv_2d_int8_path(KeIsa isa) {
  const size_t count = sizeof(paths) / sizeof(paths[0]);
  for (size_t i = 0; i < count; i++) {
    if (paths[i]->isa <= isa) return paths[i];
  }
  return paths[count - 1];
}
