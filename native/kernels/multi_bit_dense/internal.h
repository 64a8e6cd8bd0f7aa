/* What the files of this folder share: the plan, and what one instruction set brings. Nothing outside includes it. */
#ifndef KE_MULTI_BIT_DENSE_INTERNAL_H_
#define KE_MULTI_BIT_DENSE_INTERNAL_H_

#include <stddef.h>

#include "multi_bit_dense.h"

typedef struct KeMultiBitDensePath {
  KeIsa isa;
  int32_t lanes; /* outputs computed together: `run` gets blocks of them */
  int64_t task_macs; /* about 20 microseconds of work */
  /* Bytes of the path's own copy of bits and scales, and of what it makes of one sample; 0 where it needs none. */
  size_t (*weight_bytes)(const KeMultiBitDensePlan *plan);
  size_t (*sample_bytes)(const KeMultiBitDensePlan *plan);
  void (*pack)(KeMultiBitDensePlan *plan); /* may be NULL */
  void (*take_sample)(KeMultiBitDensePlan *plan, int32_t inputs, const float *x);
  void (*run)(const KeMultiBitDensePlan *plan, int32_t first_block, int32_t end_block, float *y);
} KeMultiBitDensePath;

struct KeMultiBitDensePlan {
  KeMultiBitDenseShape shape;
  const KeMultiBitDensePath *path;
  const uint8_t *bits;
  const float *scales, *bias;
  float low, high; /* the activation is min(high, max(low, v)) */
  int32_t blocks;
  void *weights; /* 64-byte aligned */
  void *sample;  /* 64-byte aligned */
};

extern const KeMultiBitDensePath ke_multi_bit_dense_reference;
extern const KeMultiBitDensePath ke_multi_bit_dense_table;
#if defined(__x86_64__)
extern const KeMultiBitDensePath ke_multi_bit_dense_avx512;
extern const KeMultiBitDensePath ke_multi_bit_dense_avx2;
#elif defined(KE_NEON_FILES)
extern const KeMultiBitDensePath ke_multi_bit_dense_neon;
#endif

/* The best path that needs no more than `isa`. */
const KeMultiBitDensePath *ke_multi_bit_dense_path(KeIsa isa);

#endif
