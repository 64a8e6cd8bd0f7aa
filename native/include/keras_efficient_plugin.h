/* Kernels for ops, the library's own as well as those of third-party packages, reach the delegate through this header.
 *
 * A plugin is a shared library that exports one function,
 *
 *     const KePlugin *keras_efficient_plugin(void);
 *
 * and links nothing of ours. The built-in ops fill in the very same structures. The life of one op in a model:
 *
 *     init      once: reads the attributes, checks and packs the weights, returns the state of this one node
 *     prepare   whenever an input's shape changed: sets the output shapes, sizes its buffers
 *     invoke    for every run of the model: computes, never allocates more than it must
 *     destroy   once
 *
 * The delegate checks everything that the tables below declare (number, type and rank of the tensors, weights being
 * constants, bytes agreeing with the dimensions) before it calls any of them; an op checks what only it can know, such as
 * whether two dimensions agree. Functions return 0, or -1 after having reported one sentence of what was expected and what
 * came. One node's functions are never called at the same time; different nodes run in different threads, so an op keeps
 * no state but that of its nodes. */
#ifndef KERAS_EFFICIENT_PLUGIN_H_
#define KERAS_EFFICIENT_PLUGIN_H_

#include <stddef.h>
#include <stdint.h>

#include "ke_parallel.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Raised whenever a structure below changes its meaning; the delegate refuses every other number. */
#define KE_PLUGIN_ABI_VERSION 1

#define KE_MAX_RANK 8

/* Element types; the numbers are TFLite's. */
typedef enum KeType {
  KE_TYPE_ANY = 0, /* only in KeArgument: the op checks the type itself */
  KE_TYPE_FLOAT32 = 1,
  KE_TYPE_INT32 = 2,
  KE_TYPE_UINT8 = 3,
  KE_TYPE_INT64 = 4,
  KE_TYPE_BOOL = 6,
  KE_TYPE_INT16 = 7,
  KE_TYPE_INT8 = 9,
} KeType;

typedef struct KeTensor {
  int32_t type; /* KeType */
  int32_t rank;
  const int32_t *dims;
  void *data; /* NULL before invoke, except for weights; may be aligned to no more than the element */
  size_t bytes;
  float scale; /* real = scale * (value - zero_point) for whole-tensor quantisation, else scale is 0 */
  int32_t zero_point;
} KeTensor;

/* What an op is told of when it is made. `attributes` is the raw flexbuffer map of the file; the three readers spare an op
 * from decoding it: each looks a key up, checks the range and reports a sentence of its own when it returns -1. */
typedef struct KeInit KeInit;
struct KeInit {
  void *host;
  const uint8_t *attributes;
  size_t attributes_bytes;
  int32_t version;   /* of the op, as the file says; already checked against KeOp.version */
  const char *isa;   /* best instruction set that kernels may use: "scalar", "avx2", "avx512", "avx512vnni", "avx512bitalg", "neon" or
                        * "neon_dotprod" */
  int32_t weight_count;
  const KeTensor *weights; /* constants, in the order of KeOp.arguments; the data stays valid until destroy */
  int (*get_int)(const KeInit *init, const char *key, int64_t minimum, int64_t maximum, int64_t *value);
  int (*get_float)(const KeInit *init, const char *key, double minimum, double maximum, double *value);
  /* A vector of integers: at most `capacity` of them, `count` receives their number. */
  int (*get_ints)(const KeInit *init, const char *key, int64_t minimum, int64_t maximum, size_t capacity, int64_t *values,
                  size_t *count);
  void (*report)(const KeInit *init, const char *format, ...);
};

typedef struct KePrepare KePrepare;
struct KePrepare {
  void *host;
  int32_t input_count; /* the arguments that are not weights, in order; no data yet */
  const KeTensor *inputs;
  int32_t output_count;
  int32_t threads; /* what KeInvoke.parallel will offer */
  /* To be called once for each output. Dimensions must not be negative; the type is the one in the file. */
  int (*set_output_shape)(const KePrepare *prepare, int output, int rank, const int32_t *dims);
  void (*report)(const KePrepare *prepare, const char *format, ...);
};

typedef struct KeInvoke KeInvoke;
struct KeInvoke {
  void *host;
  int32_t input_count;
  const KeTensor *inputs;
  int32_t output_count;
  const KeTensor *outputs; /* shaped as prepare said */
  const KeParallel *parallel;
  /* Counts multiply-accumulates that were really executed, of all samples of the batch together. */
  void (*add_macs)(const KeInvoke *invoke, uint64_t macs);
  void (*report)(const KeInvoke *invoke, const char *format, ...);
};

typedef enum KeArgumentKind {
  KE_ARGUMENT_INPUT = 0,  /* an activation or a gate */
  KE_ARGUMENT_WEIGHT = 1, /* a constant of the file */
} KeArgumentKind;

typedef struct KeArgument {
  const char *name; /* for error messages */
  int32_t kind;     /* KeArgumentKind */
  int32_t type;     /* KeType */
  int32_t rank;     /* or -1: any */
} KeArgument;

typedef struct KeOp {
  const char *name;  /* such as "ke.gated_conv_2d" */
  int32_t version;   /* the newest one understood; all from 1 on are */
  int32_t argument_count;
  const KeArgument *arguments;
  int32_t output_count;
  const int32_t *output_types; /* KeType of each output */
  void *(*init)(const KeInit *init); /* NULL after a report; an op without state returns any other address */
  int (*prepare)(void *state, const KePrepare *prepare);
  int (*invoke)(void *state, const KeInvoke *invoke);
  void (*destroy)(void *state); /* may be NULL */
} KeOp;

typedef struct KePlugin {
  uint32_t abi_version; /* KE_PLUGIN_ABI_VERSION */
  uint32_t struct_size; /* sizeof(KePlugin) */
  const char *name;
  int32_t op_count;
  const KeOp *const *ops;
} KePlugin;

#if defined(_WIN32)
#define KE_PLUGIN_EXPORT __declspec(dllexport)
#else
#define KE_PLUGIN_EXPORT __attribute__((visibility("default")))
#endif

typedef const KePlugin *(*KePluginFunction)(void);
#define KE_PLUGIN_SYMBOL "keras_efficient_plugin"

#ifdef __cplusplus
}
#endif

#endif
