/* Threads on Android. The sizes are part of its ABI: a mutex and a condition are structures of ints that only grew on
 * 64-bit devices, and a thread's handle is a long. */
#ifndef KE_BIONIC_PTHREAD_H_
#define KE_BIONIC_PTHREAD_H_

#include <stdint.h>

#if defined(__LP64__)
typedef struct {
  int32_t private_words[10];
} pthread_mutex_t;
typedef struct {
  int32_t private_words[12];
} pthread_cond_t;
_Static_assert(sizeof(pthread_mutex_t) == 40 && sizeof(pthread_cond_t) == 48, "the sizes that bionic has");
#else
typedef struct {
  int32_t private_words[1];
} pthread_mutex_t;
typedef struct {
  int32_t private_words[1];
} pthread_cond_t;
_Static_assert(sizeof(pthread_mutex_t) == 4 && sizeof(pthread_cond_t) == 4, "the sizes that bionic has");
#endif

typedef long pthread_t;
typedef int pthread_once_t;
typedef struct pthread_attr_t pthread_attr_t;           /* only ever NULL here */
typedef struct pthread_mutexattr_t pthread_mutexattr_t; /* only ever NULL here */
typedef struct pthread_condattr_t pthread_condattr_t;   /* only ever NULL here */

/* clang-format off */
#define PTHREAD_MUTEX_INITIALIZER {{0}}
#define PTHREAD_COND_INITIALIZER {{0}}
#define PTHREAD_ONCE_INIT 0
/* clang-format on */

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument);
int pthread_join(pthread_t thread, void **result);
int pthread_once(pthread_once_t *once, void (*function)(void));
int pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes);
int pthread_mutex_destroy(pthread_mutex_t *mutex);
int pthread_mutex_lock(pthread_mutex_t *mutex);
int pthread_mutex_unlock(pthread_mutex_t *mutex);
int pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes);
int pthread_cond_destroy(pthread_cond_t *condition);
int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int pthread_cond_signal(pthread_cond_t *condition);
int pthread_cond_broadcast(pthread_cond_t *condition);

#endif
