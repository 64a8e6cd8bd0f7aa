/* What the files of this folder share: the plan, and what one instruction set brings. Nothing outside includes it. */
#ifndef KE_GATED_CONV_2D_INT8_INTERNAL_H_
#define KE_GATED_CONV_2D_INT8_INTERNAL_H_

#include <stddef.h>
#include <stdint.h>

#include "gated_conv_2d_int8.h"
#include "tiled.h"

typedef struct KeInt8Call {
  const int8_t *x;
  const float *g_in, *g_out;
  int8_t *y;
  const KeParallel *parallel;
} KeInt8Call;

/* One way to compute the formula. */
typedef struct KeInt8Path {
  KeIsa isa;
  const KeInt8Isa *tiled; /* NULL for the scalar path */
  /* One sample; x, y and the gates point at it. */
  void (*run)(KeGatedConv2DInt8Plan *plan, const KeInt8Call *call);
} KeInt8Path;

/* What the gates of one sample open. */
typedef struct KeInt8Open {
  int32_t in_count, out_count;
  int32_t *in, *out; /* the channels, in order */
} KeInt8Open;

struct KeGatedConv2DInt8Plan {
  KeGatedConv2DInt8Shape shape;
  const KeInt8Path *path;
  const int8_t *kernel; /* the caller's */
  /* By output channel. `bound` is what the accumulator stays below in magnitude. */
  float *multiplier, *bound; /* multiplier: step / output_scale */
  int32_t *bias, *cap;
  int32_t low;
  int8_t *packed; /* of the vector paths, 64-byte aligned; see tiled.h */

  int32_t sized; /* whether what follows is valid */
  int32_t batch, height, width, threads;
  int32_t output_height, output_width, pad_top, pad_left;
  unsigned char *scratch; /* 64-byte aligned */
  size_t scratch_bytes;
  KeInt8Open open; /* in the scratch memory, as all that follows */
  KeInt8Tiled tiled;
};

extern const KeInt8Path ke_gated_conv_2d_int8_scalar;
#if defined(__x86_64__)
extern const KeInt8Path ke_gated_conv_2d_int8_avx2;
extern const KeInt8Path ke_gated_conv_2d_int8_avx512vnni;
#elif defined(__aarch64__)
extern const KeInt8Path ke_gated_conv_2d_int8_dotprod;
#endif

/* The best path that needs no more than `isa`. */
const KeInt8Path *ke_gated_conv_2d_int8_path(KeIsa isa);

/* The vector paths. */
void ke_int8_tiled_run(KeGatedConv2DInt8Plan *plan, const KeInt8Call *call);

/* The scalar path; the others take it for multipliers that they cannot bring into 32 bits. */
void ke_int8_scalar_run(KeGatedConv2DInt8Plan *plan, const KeInt8Call *call);

#endif
