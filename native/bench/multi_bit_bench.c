/* Times the multi-bit kernels; benchmarks/multi_bit.py builds this together with them. */
#define _POSIX_C_SOURCE 199309L
#include <stddef.h>
#include <time.h>

#include "kernels/multi_bit_conv_2d/multi_bit_conv_2d.h"
#include "kernels/multi_bit_dense/multi_bit_dense.h"
#include "thread_pool.h"

/* The mean seconds of one of `calls` runs: CPU time of the calling thread, with a pool wall time. */
double ke_multi_bit_conv_2d_bench(KeMultiBitConv2DPlan *plan, const void *x, void *y, int calls, KeThreadPool *pool);
double ke_multi_bit_dense_bench(KeMultiBitDensePlan *plan, const float *x, float *y, int calls, KeThreadPool *pool);

static double seconds(const KeThreadPool *pool) {
  struct timespec now;
  clock_gettime(pool == NULL ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double ke_multi_bit_conv_2d_bench(KeMultiBitConv2DPlan *plan, const void *x, void *y, int calls, KeThreadPool *pool) {
  const KeParallel parallel = ke_thread_pool_parallel(pool);
  const double start = seconds(pool);
  for (int i = 0; i < calls; i++) ke_multi_bit_conv_2d_run(plan, KE_MULTI_BIT_MAX_WIDTH, x, y, &parallel);
  return (seconds(pool) - start) / calls;
}

double ke_multi_bit_dense_bench(KeMultiBitDensePlan *plan, const float *x, float *y, int calls, KeThreadPool *pool) {
  const KeParallel parallel = ke_thread_pool_parallel(pool);
  const double start = seconds(pool);
  for (int i = 0; i < calls; i++) ke_multi_bit_dense_run(plan, KE_MULTI_BIT_MAX_WIDTH, x, y, &parallel);
  return (seconds(pool) - start) / calls;
}
