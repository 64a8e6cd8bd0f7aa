/* What io.github.kerasefficient.NativeLibrary calls. Java keeps one handle per delegate, uses it under a lock and never
 * after destroy; here it is only taken apart. Whatever goes wrong becomes an exception. */
#include <jni.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keras_efficient_plugin.h"
#include "ke_tflite_abi.h"
#include "options.h"
#include "registry.h"

/* Raised whenever a function below changes; Java refuses every other number. */
enum { INTERFACE_VERSION = 1 };
enum { SENTENCE_BYTES = 1024 };
enum { EXECUTED_MACS = 1, KERNEL_CALLS = 2, CLAIMED_OPS = 3 };

#define METHOD(name) JNICALL Java_io_github_kerasefficient_NativeLibrary_##name

KeTfLiteDelegate *tflite_plugin_create_delegate(const char *const *keys, const char *const *values, size_t count,
                                                void (*report_error)(const char *));
void tflite_plugin_destroy_delegate(KeTfLiteDelegate *delegate);

/* Kernels of an interpreter that is closed after its delegate may still count for a moment: counters are used again by
 * later delegates, and never freed. */
typedef struct Counters {
  KeStats stats; /* first: the delegate's address of it is ours */
  struct Counters *next;
} Counters;

typedef struct Handle {
  KeTfLiteDelegate *delegate;
  Counters *counters; /* NULL without stats */
} Handle;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* guards the two below */
static Counters *idle_counters;
static char creation_error[SENTENCE_BYTES]; /* the delegate's reporter has no argument of its own */

static void keep_error(const char *sentence) {
  if (creation_error[0] == '\0') snprintf(creation_error, sizeof(creation_error), "%s", sentence);
}

/* Java's strings must be well-formed; a sentence may quote half of a character. */
static void throw(JNIEnv *env, const char *class_name, const char *sentence) {
  char plain[SENTENCE_BYTES];
  size_t length = 0;
  for (; sentence[length] != '\0' && length < sizeof(plain) - 1; length++) {
    plain[length] = (unsigned char)sentence[length] < 0x80 ? sentence[length] : '?';
  }
  plain[length] = '\0';
  jclass class = (*env)->FindClass(env, class_name);
  if (class != NULL) (*env)->ThrowNew(env, class, plain);
}

static void throw_out_of_memory(JNIEnv *env) {
  throw(env, "java/lang/OutOfMemoryError", "keras-efficient: out of memory.");
}

static Handle *handle_of(jlong address) { return (Handle *)(intptr_t)address; }

static Counters *borrow_counters(void) {
  Counters *counters = idle_counters;
  if (counters != NULL) {
    idle_counters = counters->next;
  } else {
    counters = malloc(sizeof(*counters));
  }
  if (counters != NULL) {
    memset(counters, 0, sizeof(*counters));
    counters->stats.size_bytes = sizeof(counters->stats);
  }
  return counters;
}

static void return_counters(Counters *counters) {
  if (counters == NULL) return;
  counters->next = idle_counters;
  idle_counters = counters;
}

/* Fills in the handle, or leaves a sentence in creation_error. Called under the mutex. */
static void create_delegate(Handle *handle, const char **keys, const char **values, size_t count, bool with_stats) {
  char address[24];
  creation_error[0] = '\0';
  if (with_stats) {
    handle->counters = borrow_counters();
    if (handle->counters == NULL) {
      keep_error("keras-efficient: out of memory.");
      return;
    }
    snprintf(address, sizeof(address), "%llu", (unsigned long long)(uintptr_t)&handle->counters->stats);
    keys[count] = "stats";
    values[count++] = address;
  }
  handle->delegate = tflite_plugin_create_delegate(keys, values, count, keep_error);
  if (handle->delegate == NULL) {
    keep_error("keras-efficient: the delegate could not be made.");
    return_counters(handle->counters);
  }
}

/* The strings of an array, key and value by turns. Returns how many were taken; fewer than there are after an exception. */
static jsize take_strings(JNIEnv *env, jobjectArray options, jsize count, const char **keys, const char **values) {
  for (jsize i = 0; i < count; i++) {
    jstring string = (jstring)(*env)->GetObjectArrayElement(env, options, i);
    if (string == NULL) {
      throw(env, "java/lang/IllegalArgumentException", "Invalid options. Expected strings. Received: null.");
      return i;
    }
    const char *text = (*env)->GetStringUTFChars(env, string, NULL);
    (*env)->DeleteLocalRef(env, string);
    if (text == NULL) return i; /* with an OutOfMemoryError */
    (i % 2 == 0 ? keys : values)[i / 2] = text;
  }
  return count;
}

static void give_back_strings(JNIEnv *env, jobjectArray options, jsize count, const char **keys, const char **values) {
  for (jsize i = 0; i < count; i++) {
    jstring string = (jstring)(*env)->GetObjectArrayElement(env, options, i);
    (*env)->ReleaseStringUTFChars(env, string, (i % 2 == 0 ? keys : values)[i / 2]);
    (*env)->DeleteLocalRef(env, string);
  }
}

JNIEXPORT jint METHOD(interfaceVersion)(JNIEnv *env, jclass class) {
  (void)env;
  (void)class;
  return INTERFACE_VERSION;
}

JNIEXPORT jobjectArray METHOD(ops)(JNIEnv *env, jclass class) {
  (void)class;
  jclass string_class = (*env)->FindClass(env, "java/lang/String");
  if (string_class == NULL) return NULL;
  jobjectArray names = (*env)->NewObjectArray(env, ke_builtin_plugin.op_count, string_class, NULL);
  for (int32_t i = 0; names != NULL && i < ke_builtin_plugin.op_count; i++) {
    char entry[128];
    snprintf(entry, sizeof(entry), "%s %d", ke_builtin_plugin.ops[i]->name, (int)ke_builtin_plugin.ops[i]->version);
    jstring string = (*env)->NewStringUTF(env, entry);
    if (string == NULL) return NULL;
    (*env)->SetObjectArrayElement(env, names, i, string);
    (*env)->DeleteLocalRef(env, string);
  }
  return names;
}

JNIEXPORT jlong METHOD(create)(JNIEnv *env, jclass class, jobjectArray options, jboolean with_stats) {
  (void)class;
  jsize count = (*env)->GetArrayLength(env, options) / 2 * 2;
  Handle *handle = calloc(1, sizeof(*handle));
  const char **pairs = calloc((size_t)count + 2, sizeof(*pairs)); /* all keys, then all values; one more pair for stats */
  if (handle == NULL || pairs == NULL) {
    free(handle);
    free(pairs);
    throw_out_of_memory(env);
    return 0;
  }
  const char **keys = pairs, **values = pairs + count / 2 + 1;
  char sentence[SENTENCE_BYTES] = "";
  jsize taken = take_strings(env, options, count, keys, values);
  if (taken == count) {
    pthread_mutex_lock(&mutex);
    create_delegate(handle, keys, values, (size_t)count / 2, with_stats == JNI_TRUE);
    memcpy(sentence, creation_error, sizeof(sentence));
    pthread_mutex_unlock(&mutex);
  }
  if (!(*env)->ExceptionCheck(env)) give_back_strings(env, options, taken, keys, values);
  free(pairs);
  if (handle->delegate != NULL) return (jlong)(intptr_t)handle;
  free(handle);
  if (!(*env)->ExceptionCheck(env)) throw(env, "java/lang/IllegalArgumentException", sentence);
  return 0;
}

JNIEXPORT void METHOD(destroy)(JNIEnv *env, jclass class, jlong address) {
  (void)env;
  (void)class;
  Handle *handle = handle_of(address);
  tflite_plugin_destroy_delegate(handle->delegate);
  pthread_mutex_lock(&mutex);
  return_counters(handle->counters);
  pthread_mutex_unlock(&mutex);
  free(handle);
}

JNIEXPORT jlong METHOD(delegate)(JNIEnv *env, jclass class, jlong address) {
  (void)env;
  (void)class;
  return (jlong)(intptr_t)handle_of(address)->delegate;
}

static KeStats *stats_of(JNIEnv *env, jlong address) {
  Counters *counters = handle_of(address)->counters;
  if (counters != NULL) return &counters->stats;
  throw(env, "java/lang/IllegalStateException", "The delegate counts nothing: make it with Options.setStats(true).");
  return NULL;
}

JNIEXPORT jlong METHOD(stat)(JNIEnv *env, jclass class, jlong address, jint which) {
  (void)class;
  KeStats *stats = stats_of(env, address);
  if (stats == NULL) return 0;
  uint64_t *counter = which == EXECUTED_MACS ? &stats->executed_macs
                      : which == KERNEL_CALLS ? &stats->kernel_calls
                                              : &stats->claimed_ops;
  return (jlong)__atomic_load_n(counter, __ATOMIC_RELAXED);
}

JNIEXPORT void METHOD(resetStats)(JNIEnv *env, jclass class, jlong address) {
  (void)class;
  KeStats *stats = stats_of(env, address);
  if (stats == NULL) return;
  __atomic_store_n(&stats->executed_macs, 0, __ATOMIC_RELAXED);
  __atomic_store_n(&stats->kernel_calls, 0, __ATOMIC_RELAXED);
}
