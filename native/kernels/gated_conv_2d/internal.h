/* What the files of this folder share: the plan, and what one instruction set brings. Nothing outside includes it. */
#ifndef KE_GATED_CONV_2D_INTERNAL_H_
#define KE_GATED_CONV_2D_INTERNAL_H_

#include <stddef.h>
#include <stdint.h>

#include "gated_conv_2d.h"
#include "tiled.h"

typedef struct KeGatedConv2DCall {
  const float *x, *g_in, *g_out;
  float *y;
  const KeParallel *parallel;
} KeGatedConv2DCall;

/* One way to compute the formula. Output channels come in blocks of `lanes`. */
typedef struct KeGatedConv2DPath {
  KeIsa isa;
  int32_t lanes;
  /* Fills in plan->scratch_bytes for the sizes that the plan holds; 0, or a status where they cannot be handled. */
  int (*measure)(KeGatedConv2DPlan *plan);
  /* One sample; x, y and the gates point at it. Returns open inputs * open outputs. */
  uint64_t (*run)(KeGatedConv2DPlan *plan, const KeGatedConv2DCall *call);
} KeGatedConv2DPath;

struct KeGatedConv2DPlan {
  KeGatedConv2DShape shape;
  const KeGatedConv2DPath *path;
  float low, high; /* the activation is min(high, max(low, v)) */
  int32_t blocks;  /* out_channels in blocks of path->lanes, rounded up */
  float *weights;  /* [blocks][kernel_h][in_channels][kernel_w][lanes], zeros past out_channels; 64-byte aligned */
  float *bias;     /* [blocks][lanes] */

  int32_t sized; /* whether what follows is valid */
  int32_t batch, height, width, threads;
  int32_t output_height, output_width, pad_top, pad_left;
  size_t scratch_bytes;
  unsigned char *scratch; /* 64-byte aligned */
  KeTiled tiled;          /* of the vector paths */
};

extern const KeGatedConv2DPath ke_gated_conv_2d_scalar;
#if defined(__x86_64__)
extern const KeGatedConv2DPath ke_gated_conv_2d_avx2;
extern const KeGatedConv2DPath ke_gated_conv_2d_avx512;
#elif defined(KE_NEON_FILES)
extern const KeGatedConv2DPath ke_gated_conv_2d_neon;
#endif

/* The best path that needs no more than `isa`. */
const KeGatedConv2DPath *ke_gated_conv_2d_path(KeIsa isa);

#endif
