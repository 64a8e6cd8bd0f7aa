#include "cpu.h"

#include <string.h>

KeIsa ke_cpu_best_isa(void) {
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return KE_ISA_AVX512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return KE_ISA_AVX2;
#endif
  return KE_ISA_SCALAR;
}

const char *ke_isa_name(KeIsa isa) {
  switch (isa) {
    case KE_ISA_AVX512:
      return "avx512";
    case KE_ISA_AVX2:
      return "avx2";
    default:
      return "scalar";
  }
}

int ke_isa_parse(const char *name, KeIsa *isa) {
  static const KeIsa all[] = {KE_ISA_SCALAR, KE_ISA_AVX2, KE_ISA_AVX512};
  for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
    if (strcmp(name, ke_isa_name(all[i])) == 0) {
      *isa = all[i];
      return 0;
    }
  }
  return -1;
}
