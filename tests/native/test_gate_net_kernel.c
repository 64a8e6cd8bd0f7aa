/* Every path of the gate net against plain loops in double, over all small sizes and seeded random ones, unaligned tensors,
 * and what is no number. Returns 0 when everything agrees. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checks.h"
#include "kernels/gate_net/internal.h"

enum { CANARY = 77 };

static uint64_t state = 1;

static void *room(size_t bytes) {
  void *p = malloc(bytes + 1);
  if (p == NULL) exit(2);
  return p;
}

static double decide(const KeGateNetShape *shape, double value) {
  if (shape->kind == 1) return value > 0 ? 1 : 0;
  const double cut = value < 0 ? 0 : value > 1 ? 1 : value;
  return cut > shape->threshold ? cut : 0;
}

/* A value next to where the decision changes may fall on either side. */
static int is_close(const KeGateNetShape *shape, double value, double size) {
  return fabs(value - (shape->kind == 1 ? 0 : shape->threshold)) < 1e-5 * (1 + size);
}

static void check(int channels, int gates, int pixels, int batch, int kind) {
  const size_t count = (size_t)batch * (size_t)pixels * (size_t)channels, weights = (size_t)channels * (size_t)gates;
  float *x = room((count + 1) * sizeof(float)), *kernel = room((weights + 1) * sizeof(float)),
        *bias = room((size_t)gates * sizeof(float)), *g = room(((size_t)batch * (size_t)gates + 1) * sizeof(float));
  int8_t *bytes = (int8_t *)room(count) + 1;
  for (size_t i = 0; i < count; i++) x[i] = random_float(&state);
  for (size_t i = 0; i < count; i++) bytes[i] = (int8_t)(pixels > 200 ? (i % 3 ? 127 : -128) : random_below(&state, 256) - 128);
  for (size_t i = 0; i < weights; i++) kernel[i] = random_float(&state);
  for (int i = 0; i < gates; i++) bias[i] = random_float(&state);
  const float scale = 0.02f;
  const int zero_point = random_below(&state, 256) - 128;
  KeIsa isas[KE_MAX_ISAS];
  const int isa_count = ke_cpu_isas(isas);
  for (int i = 0; i < isa_count; i++) {
    const KeGateNetShape shape = {channels, gates, kind, 0.1f, isas[i]};
    KeGateNet *net = ke_gate_net_create(&shape, kernel, bias);
    CHECK(net != NULL, "no net");
    for (int is_int8 = 0; is_int8 < 2; is_int8++) {
      g[batch * gates] = CANARY;
      if (is_int8) ke_gate_net_run_int8(net, bytes, batch, pixels, scale, zero_point, g);
      else ke_gate_net_run(net, x, batch, pixels, g);
      CHECK(g[batch * gates] == CANARY, "%d channels, %d gates", channels, gates);
      for (int b = 0; b < batch; b++) {
        for (int n = 0; n < gates; n++) {
          double value = bias[n], size = fabs(bias[n]);
          for (int c = 0; c < channels; c++) {
            double mean = 0;
            for (int p = 0; p < pixels; p++) {
              const size_t at = ((size_t)b * (size_t)pixels + (size_t)p) * (size_t)channels + (size_t)c;
              mean += is_int8 ? (double)scale * (bytes[at] - zero_point) : x[at];
            }
            value += mean / pixels * kernel[n * channels + c];
            size += fabs(mean / pixels * kernel[n * channels + c]);
          }
          const double expected = decide(&shape, value), found = g[b * gates + n];
          CHECK(fabs(found - expected) < 1e-5 * (1 + size) || is_close(&shape, value, size),
                "%s, int8 %d, %d channels, %d gates, %d pixels, kind %d: %g, not %g", ke_isa_name(isas[i]), is_int8, channels,
                gates, pixels, kind, found, expected);
        }
      }
    }
    ke_gate_net_destroy(net);
  }
  free(x);
  free(kernel);
  free(bias);
  free(g);
  free(bytes - 1);
}

static void check_no_number(void) {
  const float kernel[1] = {1}, bias[1] = {0}, x[1] = {NAN};
  float g[1];
  for (int kind = 0; kind < 2; kind++) {
    const KeGateNetShape shape = {1, 1, kind, 0.1f, ke_cpu_best_isa()};
    KeGateNet *net = ke_gate_net_create(&shape, kernel, bias);
    ke_gate_net_run(net, x, 1, 1, g);
    CHECK(kind == 0 ? isnan(g[0]) : g[0] == 0.0f, "kind %d: %g", kind, (double)g[0]);
    ke_gate_net_destroy(net);
  }
  ke_gate_net_destroy(NULL);
}

int main(void) {
  check_no_number();
  for (int channels = 1; channels <= 35; channels++) check(channels, 1 + channels % 5, 1 + channels % 11, 2, channels % 2);
  for (int i = 0; i < 60; i++) {
    check(1 + random_below(&state, 70), 1 + random_below(&state, 70), 1 + random_below(&state, 40), 1, i % 2);
  }
  check(16, 3, 1024, 1, 0);
  check(33, 2, 600, 2, 1);
  return finish("gate_net");
}
