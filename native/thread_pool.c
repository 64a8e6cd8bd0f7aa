#include "thread_pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

struct KeThreadPool {
  pthread_mutex_t mutex;
  pthread_cond_t work_ready;
  pthread_cond_t work_done;
  atomic_ulong round; /* counts calls of run: a worker joins each one at most once; changed with the mutex held */
  atomic_int working; /* workers that have joined this round; run waits for these, not for those still waking up */
  atomic_bool stopping;
  atomic_int next; /* first index nobody has taken */
  int tasks;
  void (*task)(void *argument, int index);
  void *argument;
  int workers;
  pthread_t handles[];
};

/* Work often comes again at once, and to wake a sleeping thread takes longer than many kernels: about 0.1 ms of waiting. */
enum { kSpins = 2000 };

static inline void pause_briefly(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ volatile("yield");
#endif
}

static void take_tasks(KeThreadPool *pool) {
  for (;;) {
    int index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
    if (index >= pool->tasks) return;
    pool->task(pool->argument, index);
  }
}

static void *work(void *argument) {
  KeThreadPool *pool = argument;
  unsigned long seen = 0;
  for (;;) {
    for (int i = 0; i < kSpins && pool->round == seen && !pool->stopping; i++) pause_briefly();
    pthread_mutex_lock(&pool->mutex);
    while (pool->round == seen && !pool->stopping) pthread_cond_wait(&pool->work_ready, &pool->mutex);
    if (pool->stopping) break;
    seen = pool->round;
    const bool is_late = atomic_load_explicit(&pool->next, memory_order_relaxed) >= pool->tasks; /* the others were faster */
    if (!is_late) pool->working++;
    pthread_mutex_unlock(&pool->mutex);
    if (is_late) continue;
    take_tasks(pool);
    pthread_mutex_lock(&pool->mutex);
    if (--pool->working == 0) pthread_cond_signal(&pool->work_done);
    pthread_mutex_unlock(&pool->mutex);
  }
  pthread_mutex_unlock(&pool->mutex);
  return NULL;
}

static void run_alone(void *unused, int tasks, void (*task)(void *argument, int index), void *argument) {
  (void)unused;
  for (int i = 0; i < tasks; i++) task(argument, i);
}

static void run(void *handle, int tasks, void (*task)(void *argument, int index), void *argument) {
  if (tasks <= 1) {
    run_alone(NULL, tasks, task, argument);
    return;
  }
  KeThreadPool *pool = handle;
  pthread_mutex_lock(&pool->mutex);
  pool->tasks = tasks;
  pool->task = task;
  pool->argument = argument;
  atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
  pool->round++;
  pthread_cond_broadcast(&pool->work_ready);
  pthread_mutex_unlock(&pool->mutex);

  take_tasks(pool);

  for (int i = 0; i < kSpins && pool->working > 0; i++) pause_briefly();
  pthread_mutex_lock(&pool->mutex);
  while (pool->working > 0) pthread_cond_wait(&pool->work_done, &pool->mutex);
  pthread_mutex_unlock(&pool->mutex);
}

KeThreadPool *ke_thread_pool_create(int threads) {
  if (threads > KE_MAX_THREADS) threads = KE_MAX_THREADS;
  if (threads < 2) return NULL;
  KeThreadPool *pool = calloc(1, sizeof(*pool) + (size_t)(threads - 1) * sizeof(pthread_t));
  if (pool == NULL) return NULL;
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->work_ready, NULL);
  pthread_cond_init(&pool->work_done, NULL);
  atomic_init(&pool->next, 0);
  while (pool->workers < threads - 1 && pthread_create(&pool->handles[pool->workers], NULL, work, pool) == 0) {
    pool->workers++;
  }
  if (pool->workers == 0) {
    ke_thread_pool_destroy(pool);
    return NULL;
  }
  return pool;
}

int ke_thread_pool_threads(const KeThreadPool *pool) { return pool->workers + 1; }

void ke_thread_pool_destroy(KeThreadPool *pool) {
  if (pool == NULL) return;
  pthread_mutex_lock(&pool->mutex);
  pool->stopping = true;
  pthread_cond_broadcast(&pool->work_ready);
  pthread_mutex_unlock(&pool->mutex);
  for (int i = 0; i < pool->workers; i++) pthread_join(pool->handles[i], NULL);
  pthread_cond_destroy(&pool->work_done);
  pthread_cond_destroy(&pool->work_ready);
  pthread_mutex_destroy(&pool->mutex);
  free(pool);
}

KeParallel ke_thread_pool_parallel(KeThreadPool *pool) {
  KeParallel parallel = {pool, pool == NULL ? 1 : ke_thread_pool_threads(pool), pool == NULL ? run_alone : run};
  return parallel;
}
