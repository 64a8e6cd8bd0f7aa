#include "internal.h"

static const KeMultiBitDensePath *const best_first[] = {
#if defined(__x86_64__)
    &ke_multi_bit_dense_avx512bitalg,
    &ke_multi_bit_dense_avx512,
    &ke_multi_bit_dense_avx2,
#elif defined(KE_NEON_FILES)
    &ke_multi_bit_dense_neon,
#endif
    &ke_multi_bit_dense_table,
};

const KeMultiBitDensePath *ke_multi_bit_dense_path(KeIsa isa) {
  const KeMultiBitDensePath *const *path = best_first;
  while ((*path)->isa > isa) path++;
  return *path;
}
