/* Times the gated convolutions; benchmarks/gated_conv_2d.py builds this together with the kernels. */
#define _POSIX_C_SOURCE 199309L
#include <stddef.h>
#include <time.h>

#include "kernels/gated_conv_2d/gated_conv_2d.h"
#include "kernels/gated_conv_2d_int8/gated_conv_2d_int8.h"
#include "thread_pool.h"

/* Rows of gates that the calls take turns with. */
typedef struct Draws {
  const float *g_in, *g_out;
  int in_channels, out_channels, count;
} Draws;

/* The mean seconds of one of `calls` runs: CPU time of the calling thread, with a pool wall time. */
double ke_gated_conv_2d_bench(KeGatedConv2DPlan *plan, const float *x, const Draws *draws, float *y, int calls,
                              KeThreadPool *pool);
double ke_gated_conv_2d_int8_bench(KeGatedConv2DInt8Plan *plan, const int8_t *x, const Draws *draws, int8_t *y,
                                   int calls, KeThreadPool *pool);

static double seconds(const KeThreadPool *pool) {
  struct timespec now;
  clock_gettime(pool == NULL ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Goes on where the last block stopped, so that short blocks see all draws. */
static int next_draw(const Draws *draws) {
  static int draw = 0;
  draw = (draw + 1) % draws->count;
  return draw;
}

#define TIMED(run)                                                                       \
  const KeParallel parallel = ke_thread_pool_parallel(pool);                             \
  const double start = seconds(pool);                                                    \
  for (int i = 0; i < calls; i++) {                                                      \
    const ptrdiff_t draw = next_draw(draws);                                             \
    run(plan, x, draws->g_in + draw * draws->in_channels,                                \
        draws->g_out + draw * draws->out_channels, y, pool == NULL ? NULL : &parallel, NULL); \
  }                                                                                      \
  return (seconds(pool) - start) / calls

double ke_gated_conv_2d_bench(KeGatedConv2DPlan *plan, const float *x, const Draws *draws, float *y, int calls,
                              KeThreadPool *pool) {
  TIMED(ke_gated_conv_2d_run);
}

double ke_gated_conv_2d_int8_bench(KeGatedConv2DInt8Plan *plan, const int8_t *x, const Draws *draws, int8_t *y,
                                   int calls, KeThreadPool *pool) {
  TIMED(ke_gated_conv_2d_int8_run);
}
