/* Times the gated convolution; benchmarks/gated_conv_2d.py builds this together with the kernels. */
#define _POSIX_C_SOURCE 199309L
#include <stddef.h>
#include <time.h>

#include "kernels/gated_conv_2d/gated_conv_2d.h"

/* The mean CPU seconds of one of `calls` runs, which take turns with `draws` rows of gates. */
double ke_gated_conv_2d_bench(KeGatedConv2DPlan *plan, const float *x, const float *g_in, const float *g_out, float *y,
                              int in_channels, int out_channels, int draws, int calls);

double ke_gated_conv_2d_bench(KeGatedConv2DPlan *plan, const float *x, const float *g_in, const float *g_out, float *y,
                              int in_channels, int out_channels, int draws, int calls) {
  static int draw = 0; /* goes on where the last block stopped, so that short blocks see all draws */
  struct timespec start, end;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
  for (int i = 0; i < calls; i++) {
    draw = (draw + 1) % draws;
    ke_gated_conv_2d_run(plan, x, g_in + (ptrdiff_t)draw * in_channels, g_out + (ptrdiff_t)draw * out_channels, y, NULL,
                         NULL);
  }
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
  return ((double)(end.tv_sec - start.tv_sec) + 1e-9 * (double)(end.tv_nsec - start.tv_nsec)) / calls;
}
