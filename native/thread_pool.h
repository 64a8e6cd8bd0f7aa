/* Threads that wait for a kernel to have work for them. A pool serves one caller at a time. */
#ifndef KE_THREAD_POOL_H_
#define KE_THREAD_POOL_H_

#include "ke_parallel.h"

enum { KE_MAX_THREADS = 64 };

typedef struct KeThreadPool KeThreadPool;

/* `threads` counts the calling thread, so threads - 1 are started; NULL when not even one more could be. */
KeThreadPool *ke_thread_pool_create(int threads);
int ke_thread_pool_threads(const KeThreadPool *pool);
void ke_thread_pool_destroy(KeThreadPool *pool);

/* Work on this pool, or on the calling thread alone when `pool` is NULL. */
KeParallel ke_thread_pool_parallel(KeThreadPool *pool);

#endif
