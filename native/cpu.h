/* Which of the kernels' instruction sets this processor can run. */
#ifndef KE_CPU_H_
#define KE_CPU_H_

/* Those of one architecture are in order: who has one has all below it, down to scalar. A kernel family has files for some of
 * them and takes the best that is not above what it may use. */
typedef enum KeIsa {
  KE_ISA_SCALAR = 0,
  KE_ISA_AVX2 = 1,          /* x86-64: AVX2 and FMA */
  KE_ISA_AVX512 = 2,        /* AVX-512 F, BW, DQ, VL */
  KE_ISA_AVX512VNNI = 3,    /* and VNNI; neither VBMI nor BITALG, which the first processors with VNNI lack */
  KE_ISA_AVX512BITALG = 4,  /* and VBMI and BITALG: permutations of bytes, population counts of bytes and words */
  KE_ISA_NEON = 16,         /* 64-bit and 32-bit ARM: Advanced SIMD; 32-bit ones may lack the fused multiply-add */
  KE_ISA_NEON_DOTPROD = 17, /* 64-bit ARM: sdot and udot */
} KeIsa;

/* Whether kernel files for NEON are compiled: always for 64-bit ARM; for 32-bit ARM they are chosen at run time, but for
 * programs that pass and compute floats without any unit for them. */
#if defined(__aarch64__) || (defined(__arm__) && !defined(__SOFTFP__))
#define KE_NEON_FILES 1
#endif

enum { KE_MAX_ISAS = 5 };

/* What both the processor and the operating system support: scalar first, the best last. Returns how many. */
int ke_cpu_isas(KeIsa isas[KE_MAX_ISAS]);

/* The last of these. */
KeIsa ke_cpu_best_isa(void);

/* Whether it is among them. */
int ke_cpu_runs(KeIsa isa);

/* Whether AMD made it. Where two ways take about the same time, this may decide. */
int ke_cpu_is_amd(void);

/* "scalar", "avx2", "avx512", "avx512vnni", "avx512bitalg", "neon" or "neon_dotprod". */
const char *ke_isa_name(KeIsa isa);

/* Reads such a name; returns 0, or -1 when there is no such instruction set. */
int ke_isa_parse(const char *name, KeIsa *isa);

#endif
