#include "cpu.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdbool.h>

/* The register state that the operating system saves when it switches threads: without it an instruction set is of no use. */
static unsigned saved_state(void) {
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

KeIsa ke_cpu_best_isa(void) {
  enum { kYmmState = 0x6, kZmmState = 0xE6 };
  unsigned a, b, c, d, b7, c7, d7;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & bit_OSXSAVE) == 0 || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) {
    return KE_ISA_SCALAR;
  }
  unsigned state = saved_state();
  bool has_avx2 = (c & bit_AVX) && (c & bit_FMA) && (b7 & bit_AVX2) && (state & kYmmState) == kYmmState;
  bool has_avx512 = (b7 & bit_AVX512F) && (b7 & bit_AVX512BW) && (b7 & bit_AVX512DQ) && (b7 & bit_AVX512VL) &&
                    (state & kZmmState) == kZmmState;
  return !has_avx2 ? KE_ISA_SCALAR : has_avx512 ? KE_ISA_AVX512 : KE_ISA_AVX2;
}
#else
KeIsa ke_cpu_best_isa(void) { return KE_ISA_SCALAR; }
#endif

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
