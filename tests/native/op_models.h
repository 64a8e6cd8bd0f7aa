/* Models with one of our ops in the fake runtime, in either form. */
#ifndef KE_TESTS_OP_MODELS_H_
#define KE_TESTS_OP_MODELS_H_

#include "fake_runtime.h"
#include "flex_writer.h"

typedef struct OpModel {
  FakeRuntime runtime;
  uint8_t *attributes; /* exactly attributes_size bytes */
  size_t attributes_size;
  KeTfLiteCompositeParams composite;
  int is_composite;
  int node;             /* of subgraph 0 */
  int inputs[8], output; /* tensors of subgraph 0 */
  int input_count;
  int weights[8]; /* tensors of subgraph 0 or, for a composite, 1 */
  int weight_count;
} OpModel;

/* x [1, 5, 4, 3], kernel [7, 3, 3, 3], "same", relu; bias 0.5, kernel 0.25. */
void make_gated_conv_2d(OpModel *model, int is_composite);

/* x [1, 40], 24 weights a group, two bases, 19 outputs; all bits 0, scales 0.5, bias 1. */
void make_multi_bit_dense(OpModel *model, int is_composite);

/* x [1, 5, 4, 3] in levels 0 and 0.5, 3x3, pixelwise groups of one basis, "same", 7 outputs; bits, scales and bias as above. */
void make_multi_bit_conv_2d(OpModel *model, int is_composite);

/* Points the node at these attributes, which are copied. */
void set_attributes(OpModel *model, const uint8_t *bytes, size_t size);

void destroy_model(OpModel *model);

#endif
