/* What the files of this folder share. Nothing outside includes it. */
#ifndef KE_GATE_NET_INTERNAL_H_
#define KE_GATE_NET_INTERNAL_H_

#include <stddef.h>

#include "gate_net.h"

/* One way to compute the parts that take time. */
typedef struct KeGateNetPath {
  KeIsa isa;
  /* means[c] of x [pixels, channels] */
  void (*means)(const float *x, ptrdiff_t pixels, ptrdiff_t channels, float *means);
  /* means[c] of x - zero_point; the sums are exact for pixels up to 2^24. */
  void (*means_int8)(const int8_t *x, ptrdiff_t pixels, ptrdiff_t channels, int32_t zero_point, float *means);
  /* values[n] = bias[n] + sum means[c] * kernel[n, c] */
  void (*multiply)(const float *means, const float *kernel, const float *bias, ptrdiff_t channels, ptrdiff_t gates,
                   float *values);
} KeGateNetPath;

struct KeGateNet {
  KeGateNetShape shape;
  const KeGateNetPath *path;
  const float *kernel, *bias; /* the caller's */
  float means[];              /* [channels] */
};

extern const KeGateNetPath ke_gate_net_portable;
#if defined(__x86_64__)
extern const KeGateNetPath ke_gate_net_avx2;
#endif

/* The best path that needs no more than `isa`. */
const KeGateNetPath *ke_gate_net_path(KeIsa isa);

#endif
