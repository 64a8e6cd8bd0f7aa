/* The portable path, and the twin that every vector path is tested against. */
#include "cpu.h"

#define VEC 1

typedef float vec;

static inline vec vec_load(const float *p) { return *p; }
static inline void vec_store(float *p, vec v) { *p = v; }
static inline vec vec_multiply_add(vec a, vec b, vec c) { return a * b + c; }

static inline vec vec_clamp(vec v, float low, float high) {
  if (v < low) v = low;
  return v > high ? high : v;
}

static inline vec vec_gate(vec v, vec g) { return g == 0.0f ? 0.0f : g * v; }

#include "rows.h"

const KeDepthwisePath ke_depthwise_scalar = {KE_ISA_SCALAR, rows};
