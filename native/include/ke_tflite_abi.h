/* The part of TFLite's C interface that a delegate meets, laid out as the runtimes from 2.14 on (TensorFlow Lite,
 * tflite-runtime, LiteRT) lay it out in memory. Members were only ever added at the ends of these structures, and nothing
 * here is created by this library except KeTfLiteDelegate and KeTfLiteRegistration, so one binary serves them all. Names
 * follow TFLite's with a prefix, so that both headers can be included together. */
#ifndef KE_TFLITE_ABI_H_
#define KE_TFLITE_ABI_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum { kKeTfLiteOk = 0, kKeTfLiteError = 1 } KeTfLiteStatus;

enum {
  kKeTfLiteFloat32 = 1,
  kKeTfLiteInt32 = 2,
  kKeTfLiteUInt8 = 3,
  kKeTfLiteInt64 = 4,
  kKeTfLiteBool = 6,
  kKeTfLiteInt16 = 7,
  kKeTfLiteInt8 = 9,
};

enum { kKeTfLiteMmapRo = 1, kKeTfLiteDynamic = 4 }; /* allocation types: constants; sized while the model runs */
enum { kKeTfLiteBuiltinCustom = 32, kKeTfLiteBuiltinDelegate = 51, kKeTfLiteBuiltinComposite = 206 };
enum { kKeTfLiteDelegateAllowsDynamicTensors = 1 };
enum { kKeTfLiteNullBufferHandle = -1 };

typedef struct KeTfLiteIntArray {
  int size;
  int data[];
} KeTfLiteIntArray;

struct KeTfLiteContext;
struct KeTfLiteDelegate;

typedef struct KeTfLiteTensor {
  int type;
  void *data;
  KeTfLiteIntArray *dims;
  struct {
    float scale;
    int32_t zero_point;
  } quantization_parameters;
  int allocation_type;
  size_t bytes;
  const void *allocation;
  const char *name;
  struct KeTfLiteDelegate *delegate;
  int buffer_handle;
  bool data_is_stale;
  bool is_variable;
  struct {
    int type;
    void *parameters;
  } quantization;
  void *sparsity;
  const KeTfLiteIntArray *dims_signature;
} KeTfLiteTensor;

typedef struct KeTfLiteNode {
  KeTfLiteIntArray *inputs;
  KeTfLiteIntArray *outputs;
  KeTfLiteIntArray *intermediates;
  KeTfLiteIntArray *temporaries;
  void *user_data;
  void *builtin_data;
  const void *custom_initial_data;
  int custom_initial_data_size;
  struct KeTfLiteDelegate *delegate;
  bool might_have_side_effect;
} KeTfLiteNode;

/* `builtin_data` of a composite node. */
typedef struct KeTfLiteCompositeParams {
  const char *name;
  int32_t subgraph_index;
  const uint8_t *attributes;
  size_t attributes_size;
} KeTfLiteCompositeParams;

/* What a delegate kernel's init receives as its buffer. */
typedef struct KeTfLiteDelegateParams {
  struct KeTfLiteDelegate *delegate;
  KeTfLiteIntArray *nodes_to_replace;
  KeTfLiteIntArray *input_tensors;
  KeTfLiteIntArray *output_tensors;
} KeTfLiteDelegateParams;

/* Passed by value to the runtime, which may know more members than this library: the tail stays zero. On 64-bit machines
 * it lies in memory of its own and may be too long; 32-bit ones find the arguments after it by its size. */
typedef struct KeTfLiteRegistration {
  void *(*init)(struct KeTfLiteContext *context, const char *buffer, size_t length);
  void (*free)(struct KeTfLiteContext *context, void *buffer);
  KeTfLiteStatus (*prepare)(struct KeTfLiteContext *context, KeTfLiteNode *node);
  KeTfLiteStatus (*invoke)(struct KeTfLiteContext *context, KeTfLiteNode *node);
  const char *(*profiling_string)(const struct KeTfLiteContext *context, const KeTfLiteNode *node);
  int32_t builtin_code;
  const char *custom_name;
  int version;
#if UINTPTR_MAX > UINT32_MAX
  void *tail[16];
#else
  void *tail[2];
  uint64_t long_tail;
#endif
} KeTfLiteRegistration;

typedef struct KeTfLiteContext {
  size_t tensors_size;
  KeTfLiteStatus (*GetExecutionPlan)(struct KeTfLiteContext *context, KeTfLiteIntArray **plan);
  KeTfLiteTensor *tensors;
  void *impl_;
  /* Takes ownership of the dimensions and releases them with free. */
  KeTfLiteStatus (*ResizeTensor)(struct KeTfLiteContext *context, KeTfLiteTensor *tensor, KeTfLiteIntArray *dims);
  void (*ReportError)(struct KeTfLiteContext *context, const char *format, ...);
  KeTfLiteStatus (*AddTensors)(struct KeTfLiteContext *context, int count, int *first);
  KeTfLiteStatus (*GetNodeAndRegistration)(struct KeTfLiteContext *context, int node_index, KeTfLiteNode **node,
                                           KeTfLiteRegistration **registration);
  KeTfLiteStatus (*ReplaceNodeSubsetsWithDelegateKernels)(struct KeTfLiteContext *context,
                                                          KeTfLiteRegistration registration,
                                                          const KeTfLiteIntArray *nodes,
                                                          struct KeTfLiteDelegate *delegate);
  int recommended_num_threads;
  void *(*GetExternalContext)(struct KeTfLiteContext *context, int type);
  void (*SetExternalContext)(struct KeTfLiteContext *context, int type, void *external);
  bool allow_fp32_relax_to_fp16;
  void *profiler;
  void *(*AllocatePersistentBuffer)(struct KeTfLiteContext *context, size_t bytes);
  KeTfLiteStatus (*AllocateBufferForEval)(struct KeTfLiteContext *context, size_t bytes, void **data);
  KeTfLiteStatus (*RequestScratchBufferInArena)(struct KeTfLiteContext *context, size_t bytes, int *index);
  void *(*GetScratchBuffer)(struct KeTfLiteContext *context, int index);
  /* NULL in today's runtimes. */
  KeTfLiteStatus (*ResizeTensorExplicit)(struct KeTfLiteContext *context, KeTfLiteTensor *tensor, int rank,
                                         const int *dims);
  KeTfLiteStatus (*PreviewDelegatePartitioning)(struct KeTfLiteContext *context, const KeTfLiteIntArray *nodes,
                                                KeTfLiteDelegateParams **partitions, int *count);
  KeTfLiteTensor *(*GetTensor)(const struct KeTfLiteContext *context, int index);
  void *(*GetEvalTensor)(const struct KeTfLiteContext *context, int index);
  KeTfLiteStatus (*GetModelMetadata)(const struct KeTfLiteContext *context, const char *name, const char **data,
                                     size_t *bytes);
  /* Both only exist while a delegate is being applied, and in runtimes that know composites. */
  KeTfLiteStatus (*AcquireSubgraphContext)(struct KeTfLiteContext *context, int subgraph_index,
                                           struct KeTfLiteContext **acquired);
  KeTfLiteStatus (*ReleaseSubgraphContext)(struct KeTfLiteContext *context, int subgraph_index);
} KeTfLiteContext;

typedef struct KeTfLiteDelegate {
  void *data_;
  KeTfLiteStatus (*Prepare)(KeTfLiteContext *context, struct KeTfLiteDelegate *delegate);
  KeTfLiteStatus (*CopyFromBufferHandle)(KeTfLiteContext *context, struct KeTfLiteDelegate *delegate, int handle,
                                         KeTfLiteTensor *tensor);
  KeTfLiteStatus (*CopyToBufferHandle)(KeTfLiteContext *context, struct KeTfLiteDelegate *delegate, int handle,
                                       KeTfLiteTensor *tensor);
  void (*FreeBufferHandle)(KeTfLiteContext *context, struct KeTfLiteDelegate *delegate, int *handle);
  int64_t flags;
  void *opaque_delegate_builder;
  void *tail[4];
} KeTfLiteDelegate;

#endif
