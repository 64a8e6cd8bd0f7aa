/* Which of the kernels' instruction sets this processor can run. */
#ifndef KE_CPU_H_
#define KE_CPU_H_

typedef enum KeIsa {
  KE_ISA_SCALAR = 0,
  KE_ISA_AVX2 = 1,   /* AVX2 and FMA */
  KE_ISA_AVX512 = 2, /* AVX-512 F, BW, DQ, VL */
} KeIsa;

/* The best one that both the processor and the operating system support. */
KeIsa ke_cpu_best_isa(void);

/* "scalar", "avx2" or "avx512". */
const char *ke_isa_name(KeIsa isa);

/* Reads such a name; returns 0, or -1 when there is no such instruction set. */
int ke_isa_parse(const char *name, KeIsa *isa);

#endif
