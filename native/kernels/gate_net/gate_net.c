#include "gate_net.h"

#include <stdlib.h>

#include "internal.h"

static const KeGateNetPath *const best_first[] = {
#if defined(__x86_64__)
    &ke_gate_net_avx2,
#endif
    &ke_gate_net_portable,
};

const KeGateNetPath *ke_gate_net_path(KeIsa isa) {
  const KeGateNetPath *const *path = best_first;
  while ((*path)->isa > isa) path++;
  return *path;
}

KeGateNet *ke_gate_net_create(const KeGateNetShape *shape, const float *kernel, const float *bias) {
  KeGateNet *net = malloc(sizeof(*net) + (size_t)shape->channels * sizeof(float));
  if (net == NULL) return NULL;
  net->shape = *shape;
  net->path = ke_gate_net_path(shape->isa);
  net->kernel = kernel;
  net->bias = bias;
  return net;
}

/* A value that is no number stays none where the gate is a scale, as in the reference. */
static float decide(const KeGateNetShape *shape, float value) {
  if (shape->kind != 0) return value > 0.0f ? 1.0f : 0.0f;
  const float cut = value < 0.0f ? 0.0f : value > 1.0f ? 1.0f : value;
  return cut > shape->threshold ? cut : cut * 0.0f;
}

static void finish(KeGateNet *net, float *g) {
  const KeGateNetShape *shape = &net->shape;
  net->path->multiply(net->means, net->kernel, net->bias, shape->channels, shape->gates, g);
  for (int32_t n = 0; n < shape->gates; n++) g[n] = decide(shape, g[n]);
}

void ke_gate_net_run(KeGateNet *net, const float *x, int64_t batch, int64_t pixels, float *g) {
  const int32_t channels = net->shape.channels;
  for (int64_t b = 0; b < batch; b++, x += pixels * channels, g += net->shape.gates) {
    net->path->means(x, pixels, channels, net->means);
    finish(net, g);
  }
}

void ke_gate_net_run_int8(KeGateNet *net, const int8_t *x, int64_t batch, int64_t pixels, float scale, int32_t zero_point,
                          float *g) {
  const int32_t channels = net->shape.channels;
  for (int64_t b = 0; b < batch; b++, x += pixels * channels, g += net->shape.gates) {
    net->path->means_int8(x, pixels, channels, zero_point, net->means);
    for (int32_t c = 0; c < channels; c++) net->means[c] *= scale;
    finish(net, g);
  }
}

void ke_gate_net_destroy(KeGateNet *net) { free(net); }
