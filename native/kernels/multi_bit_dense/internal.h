/* What the files of this folder share: the plan, and what one instruction set brings. Nothing outside includes it. */
#ifndef KE_MULTI_BIT_DENSE_INTERNAL_H_
#define KE_MULTI_BIT_DENSE_INTERNAL_H_

#include "kernels/multi_bit_conv_2d/multi_bit_conv_2d.h"
#include "multi_bit_dense.h"

/* Weights without their raggedness: every group has `bases` bases, some with scale 0, and whole bytes. */
typedef struct KeExpandedShape {
  int32_t outputs, groups, bases, group_size;
} KeExpandedShape;

typedef struct KeMultiBitDensePath {
  KeIsa isa;
  int32_t takes_packed; /* reads `packed` and `max_bases`; the others read what follows from expanding it */
  int64_t task_macs;    /* about 20 microseconds of work */
  /* Outputs computed together: `run` gets blocks of them. */
  int32_t (*lanes)(const KeMultiBitDensePlan *plan);
  /* Bytes of the path's own copy of bits and scales, and of what it makes of one sample; 0 where it needs none. */
  size_t (*weight_bytes)(const KeMultiBitDensePlan *plan);
  size_t (*sample_bytes)(const KeMultiBitDensePlan *plan);
  void (*pack)(KeMultiBitDensePlan *plan); /* may be NULL */
  void (*take_sample)(KeMultiBitDensePlan *plan, int32_t inputs, const float *x);
  void (*run)(const KeMultiBitDensePlan *plan, int32_t first_block, int32_t end_block, float *y);
} KeMultiBitDensePath;

struct KeMultiBitDensePlan {
  KeMultiBitDenseShape given;
  KeMultiBitConv2DPlan *conv; /* for multi-bit inputs; nothing else is used then */
  int32_t batch;
  KePackedWeights packed;
  const KeMultiBitDensePath *path;
  int32_t max_bases; /* of the run, or those that `weights` were made for */
  KeExpandedShape shape;
  uint8_t *bits;  /* [outputs, groups, bases, group_size / 8] */
  float *scales;  /* [outputs, groups, bases] */
  float *spread;  /* a sample with every group in whole bytes, NULL where it is so anyway */
  const float *bias;
  float low, high; /* the activation is min(high, max(low, v)) */
  int32_t blocks;
  void *weights; /* 64-byte aligned */
  void *sample;  /* 64-byte aligned */
};

extern const KeMultiBitDensePath ke_multi_bit_dense_reference;
extern const KeMultiBitDensePath ke_multi_bit_dense_table;
#if defined(__x86_64__)
extern const KeMultiBitDensePath ke_multi_bit_dense_avx512bitalg;
extern const KeMultiBitDensePath ke_multi_bit_dense_avx512;
extern const KeMultiBitDensePath ke_multi_bit_dense_avx2;
#elif defined(KE_NEON_FILES)
extern const KeMultiBitDensePath ke_multi_bit_dense_neon;
#endif

/* The best path that needs no more than `isa`. */
const KeMultiBitDensePath *ke_multi_bit_dense_path(KeIsa isa);

#endif
