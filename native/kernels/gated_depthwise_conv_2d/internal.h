/* What the files of this folder share. Nothing outside includes it. */
#ifndef KE_GATED_DEPTHWISE_CONV_2D_INTERNAL_H_
#define KE_GATED_DEPTHWISE_CONV_2D_INTERNAL_H_

#include <stddef.h>
#include <stdint.h>

#include "gated_depthwise_conv_2d.h"

enum { KE_DEPTHWISE_LANES = 16 };

/* One sample. Channels are listed: all of them, or the open ones where those are few. */
typedef struct KeDepthwiseCall {
  const KeGatedDepthwiseConv2DPlan *plan;
  const float *x;
  float *y;
  int32_t count;  /* of listed channels */
  int32_t padded; /* the same, a multiple of the lanes */
  const float *weights, *bias, *gates; /* of the listed channels: [taps][padded], [padded], [padded] */
  int32_t tasks;
} KeDepthwiseCall;

/* Output rows [first, end), with the memory of this task. */
typedef void (*KeDepthwiseRows)(const KeDepthwiseCall *call, int32_t first, int32_t end, int32_t task);

typedef struct KeDepthwisePath {
  KeIsa isa;
  KeDepthwiseRows rows;
} KeDepthwisePath;

struct KeGatedDepthwiseConv2DPlan {
  KeGatedConv2DShape shape;
  const KeDepthwisePath *path;
  float low, high; /* the activation is min(high, max(low, v)) */
  int32_t taps, multiplier;
  int32_t padded;    /* out_channels, a multiple of the lanes */
  float *weights;    /* [taps][out_channels] */
  float *bias;       /* [out_channels] */
  float *listed;     /* [taps][padded]: the weights of the listed channels */
  float *scales;     /* [2][padded]: their bias, their gates */
  int32_t *channels; /* [2][out_channels]: the input and the output channel of each */

  int32_t sized; /* whether what follows is valid */
  int32_t batch, height, width, threads;
  int32_t output_height, output_width, pad_top, pad_left;
  int32_t ring_rows, ring_columns;
  size_t ring_floats;
  float *rings;           /* [threads][ring_rows][ring_columns][padded] */
  const float **pointers; /* [threads][2][taps]: the inputs and the weights of each tap inside the image */
};

extern const KeDepthwisePath ke_depthwise_scalar;
#if defined(__x86_64__)
extern const KeDepthwisePath ke_depthwise_avx2;
extern const KeDepthwisePath ke_depthwise_avx512;
#elif defined(KE_NEON_FILES)
extern const KeDepthwisePath ke_depthwise_neon;
#endif

/* The best path that needs no more than `isa`. */
const KeDepthwisePath *ke_depthwise_path(KeIsa isa);

#endif
