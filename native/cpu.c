#include "cpu.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

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
  if (!has_avx2) return KE_ISA_SCALAR;
  if (!has_avx512) return KE_ISA_AVX2;
  if (!(c7 & bit_AVX512VNNI)) return KE_ISA_AVX512;
  return (c7 & bit_AVX512VBMI) && (c7 & bit_AVX512BITALG) ? KE_ISA_AVX512BITALG : KE_ISA_AVX512VNNI;
}

int ke_cpu_is_amd(void) {
  unsigned a, name[3];
  return __get_cpuid(0, &a, &name[0], &name[2], &name[1]) && memcmp(name, "AuthenticAMD", sizeof(name)) == 0;
}

#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>

KeIsa ke_cpu_best_isa(void) {
  enum { kDotProduct = 1 << 20 }; /* HWCAP_ASIMDDP, which old headers lack */
  return getauxval(AT_HWCAP) & kDotProduct ? KE_ISA_NEON_DOTPROD : KE_ISA_NEON;
}

#elif defined(__aarch64__)
KeIsa ke_cpu_best_isa(void) { return KE_ISA_NEON; }

#elif defined(__arm__) && defined(__linux__)
#include <sys/auxv.h>

KeIsa ke_cpu_best_isa(void) {
  enum { kNeon = 1 << 12 }; /* HWCAP_NEON */
  return getauxval(AT_HWCAP) & kNeon ? KE_ISA_NEON : KE_ISA_SCALAR;
}

#else
KeIsa ke_cpu_best_isa(void) { return KE_ISA_SCALAR; }
#endif

#if !defined(__x86_64__)
int ke_cpu_is_amd(void) { return 0; }
#endif

/* By architecture, each in order. */
static const struct {
  KeIsa isa;
  const char *name;
} table[] = {
    {KE_ISA_SCALAR, "scalar"},         {KE_ISA_AVX2, "avx2"}, {KE_ISA_AVX512, "avx512"},
    {KE_ISA_AVX512VNNI, "avx512vnni"}, {KE_ISA_AVX512BITALG, "avx512bitalg"},
    {KE_ISA_NEON, "neon"},             {KE_ISA_NEON_DOTPROD, "neon_dotprod"},
};
enum { kCount = sizeof(table) / sizeof(table[0]) };

int ke_cpu_runs(KeIsa isa) {
  const KeIsa best = ke_cpu_best_isa();
  const bool same_architecture = (isa >= KE_ISA_NEON) == (best >= KE_ISA_NEON);
  return isa == KE_ISA_SCALAR || (same_architecture && isa <= best);
}

int ke_cpu_isas(KeIsa isas[KE_MAX_ISAS]) {
  int count = 0;
  for (size_t i = 0; i < kCount; i++) {
    if (ke_cpu_runs(table[i].isa)) isas[count++] = table[i].isa;
  }
  return count;
}

const char *ke_isa_name(KeIsa isa) {
  for (size_t i = 0; i < kCount; i++) {
    if (table[i].isa == isa) return table[i].name;
  }
  return "scalar";
}

int ke_isa_parse(const char *name, KeIsa *isa) {
  for (size_t i = 0; i < kCount; i++) {
    if (strcmp(name, table[i].name) == 0) {
      *isa = table[i].isa;
      return 0;
    }
  }
  return -1;
}
