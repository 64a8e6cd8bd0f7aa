/* How a kernel splits its work over threads without knowing who owns them. */
#ifndef KE_PARALLEL_H_
#define KE_PARALLEL_H_

typedef struct KeParallel {
  /* Belongs to whoever filled in the structure; handed back to `run`. */
  void *pool;
  /* How many threads work at once, the calling one included; at least 1. */
  int threads;
  /* Calls task(argument, index) once for every index in [0, tasks), on any of the threads, in any order, and returns when
   * all calls have returned. Must not be called from inside a task. */
  void (*run)(void *pool, int tasks, void (*task)(void *argument, int index), void *argument);
} KeParallel;

#endif
