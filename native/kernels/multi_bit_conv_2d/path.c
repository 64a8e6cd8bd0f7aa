/* Every path there is, best first, and the choice between them. */
#include "internal.h"

static const KeMultiBitPath *const paths[] = {
#if defined(__x86_64__)
    &ke_multi_bit_popcount_avx512bitalg,
    &ke_multi_bit_table_avx512bitalg,
    &ke_multi_bit_popcount_avx2,
    &ke_multi_bit_table_avx2,
    &ke_multi_bit_exact_avx512,
    &ke_multi_bit_exact_avx2,
#elif defined(KE_NEON_FILES)
    &ke_multi_bit_popcount_neon,
#endif
    &ke_multi_bit_popcount_scalar,
    &ke_multi_bit_table_scalar,
    &ke_multi_bit_exact,
};

const KeMultiBitPath *ke_multi_bit_path(KeMultiBitFamily family, KeIsa isa) {
  for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
    if (paths[i]->family == family && paths[i]->isa <= isa) return paths[i];
  }
  return &ke_multi_bit_exact;
}

int ke_multi_bit_chunked(const KeMultiBitConv2DShape *shape) {
  const int64_t channels = shape->conv.in_channels, taps = (int64_t)shape->conv.kernel_h * shape->conv.kernel_w;
  if (shape->order != 0 && taps > 1 && channels > 1) return 0;
  for (int64_t t = 0; t < taps; t++) {
    for (int64_t c = 0; c < channels; c += KE_CHUNK) {
      const int64_t first = t * channels + c, last = t * channels + (c + KE_CHUNK < channels ? c + KE_CHUNK : channels) - 1;
      if (first / shape->group_size != last / shape->group_size) return 0;
    }
  }
  return 1;
}

KeMultiBitFamily ke_multi_bit_family(const KeMultiBitConv2DShape *shape) {
  if (!ke_multi_bit_chunked(shape)) return KE_MULTI_BIT_EXACT;
  const int has_tables = ke_multi_bit_path(KE_MULTI_BIT_TABLE, shape->conv.isa)->isa != KE_ISA_SCALAR;
  const int counts = shape->activation_bits == 2 && shape->conv.isa >= KE_ISA_AVX512BITALG && ke_cpu_is_amd();
  if (shape->activation_bits > 1 && has_tables && !counts) return KE_MULTI_BIT_TABLE; /* one look-up for all planes */
  if (shape->activation_bits > 0) return KE_MULTI_BIT_POPCOUNT;
  return has_tables ? KE_MULTI_BIT_TABLE : KE_MULTI_BIT_EXACT;
}
