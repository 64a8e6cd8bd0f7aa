/* Gates for an input, from the means of its channels.
 *
 *   g[b, n] = S(bias[n] + sum over channels c of mean over pixels p of x[b, p, c] * W[n, c])
 *
 * x is NHWC, W is [gates, channels]; no pointer needs to be aligned to more than its elements. With kind 0 (relu1) S is
 * min(max(v, 0), 1) where that is above the threshold, else 0; with kind 1 (binary concrete) 1 where v is above 0, else 0.
 * An int8 x stands for scale * (x - zero_point). */
#ifndef KE_GATE_NET_H_
#define KE_GATE_NET_H_

#include <stdint.h>

#include "cpu.h"

typedef struct KeGateNetShape {
  int32_t channels, gates; /* at least 1 */
  int32_t kind;
  float threshold;
  KeIsa isa;
} KeGateNetShape;

typedef struct KeGateNet KeGateNet;

/* kernel and bias must stay where they are until the net is destroyed. NULL where there is no memory. */
KeGateNet *ke_gate_net_create(const KeGateNetShape *shape, const float *kernel, const float *bias);

/* At least one pixel; g [batch, gates]. One net runs in one thread at a time. */
void ke_gate_net_run(KeGateNet *net, const float *x, int64_t batch, int64_t pixels, float *g);
void ke_gate_net_run_int8(KeGateNet *net, const int8_t *x, int64_t batch, int64_t pixels, float scale, int32_t zero_point,
                          float *g);

/* Frees the net; NULL is allowed. */
void ke_gate_net_destroy(KeGateNet *net);

#endif
