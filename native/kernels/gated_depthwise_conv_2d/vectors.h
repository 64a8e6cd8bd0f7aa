/* The operations of rows.h for vectors of VEC floats, in the vector extensions of GCC and clang; the multiply-add is an
 * instruction set's own. */
#include <string.h>

typedef float vec __attribute__((vector_size(VEC * 4)));
typedef int vec_bits __attribute__((vector_size(VEC * 4)));

static inline vec vec_load(const float *p) {
  vec v;
  memcpy(&v, p, sizeof(v));
  return v;
}

static inline void vec_store(float *p, vec v) { memcpy(p, &v, sizeof(v)); }

/* a where the mask is set, else b */
static inline vec vec_choose(vec_bits mask, vec a, vec b) { return (vec)((mask & (vec_bits)a) | (~mask & (vec_bits)b)); }

static inline vec vec_clamp(vec v, float low, float high) {
  const vec lows = (vec){0} + low, highs = (vec){0} + high;
  v = vec_choose(v < lows, lows, v);
  return vec_choose(v > highs, highs, v);
}

static inline vec vec_gate(vec v, vec g) { return vec_choose(g == 0.0f, (vec){0}, g * v); }
