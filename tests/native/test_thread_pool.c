/* The pool calls every task once, whoever takes it, and can be used again at once and torn down at once. */
#include "thread_pool.h"

#include <stdatomic.h>

#include "checks.h"

enum { TASKS = 1000 };

static void count(void *argument, int index) { atomic_fetch_add(&((atomic_int *)argument)[index], 1); }

int main(void) {
  for (int threads = 1; threads <= 5; threads++) {
    KeThreadPool *pool = ke_thread_pool_create(threads);
    KeParallel parallel = ke_thread_pool_parallel(pool);
    CHECK(parallel.threads == threads, "%d threads, received %d", threads, parallel.threads);
    static atomic_int counts[TASKS];
    for (int i = 0; i < TASKS; i++) atomic_store(&counts[i], 0);
    int calls[TASKS] = {0};
    for (int round = 0; round < 300; round++) {
      int tasks = round % 7 == 0 ? TASKS : round % 5;
      parallel.run(parallel.pool, tasks, count, counts);
      for (int i = 0; i < tasks; i++) calls[i]++;
    }
    for (int i = 0; i < TASKS; i++) CHECK(atomic_load(&counts[i]) == calls[i], "task %d ran %d times", i, atomic_load(&counts[i]));
    ke_thread_pool_destroy(pool);
  }
  for (int i = 0; i < 100; i++) ke_thread_pool_destroy(ke_thread_pool_create(4));
  CHECK(ke_thread_pool_create(1) == NULL, "no pool for one thread");
  return finish("thread pool");
}
