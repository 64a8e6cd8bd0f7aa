/* ke.multi_bit_dense: x [B, N], max_bits, packed weights -> y [B, O]. */
#include "kernels/multi_bit_dense/multi_bit_dense.h"

#include <stdlib.h>

#include "attributes.h"
#include "builtin.h"
#include "ke_attributes.h"
#include "multi_bit_weights.h"

typedef struct State {
  KeMultiBitDenseShape shape;
  KeIsa isa; /* the best that may be used; `shape` may do with less */
  KeMultiBitTensors tensors;
  KeMultiBitDensePlan *plan; /* for shape.inputs, which the first prepare tells */
} State;

static void destroy(void *pointer) {
  State *state = pointer;
  if (state == NULL) return;
  ke_multi_bit_dense_destroy(state->plan);
  ke_multi_bit_free_weights(&state->tensors);
  free(state);
}

static void *init(const KeInit *init) {
  KeMultiBitDenseAttributes attributes;
  KeMultiBitTensors tensors;
  if (ke_attributes_decode(init, ke_multi_bit_dense_fields,
                           sizeof(ke_multi_bit_dense_fields) / sizeof(ke_multi_bit_dense_fields[0]), &attributes) != 0 ||
      ke_multi_bit_read_weights(init, attributes.activation_bits, &tensors) != 0) {
    return NULL;
  }
  State *state = calloc(1, sizeof(*state));
  if (state == NULL) {
    ke_multi_bit_free_weights(&tensors);
    return NULL;
  }
  state->tensors = tensors;
  state->shape = (KeMultiBitDenseShape){.outputs = tensors.outputs,
                                        .group_size = attributes.group_size,
                                        .bases = attributes.bases,
                                        .activation_bits = attributes.activation_bits,
                                        .activation = attributes.activation};
  if (ke_isa_parse(init->isa, &state->isa) != 0) state->isa = KE_ISA_SCALAR;
  return state;
}

/* Tables of bytes round sums of four inputs to 8 bits. A layer with fewer weights than this has no time to save by it. */
enum { kLeastWeightsForBytes = 1 << 16 };

static KeIsa isa_for(const State *state) {
  const int64_t weights = (int64_t)state->shape.inputs * state->shape.outputs;
  const int rounds = state->isa == KE_ISA_AVX512BITALG && state->shape.activation_bits == 0;
  return rounds && weights < kLeastWeightsForBytes ? KE_ISA_AVX512VNNI : state->isa;
}

static int make_plan(State *state, const KePrepare *prepare, int32_t inputs) {
  if (state->plan != NULL && state->shape.inputs == inputs) return 0;
  ke_multi_bit_dense_destroy(state->plan);
  state->shape.inputs = inputs;
  state->shape.isa = isa_for(state);
  char message[KE_MULTI_BIT_MESSAGE] = "";
  state->plan = ke_multi_bit_dense_create(&state->shape, &state->tensors.streams, state->tensors.levels,
                                          state->tensors.bias, message, sizeof(message));
  if (state->plan != NULL) return 0;
  prepare->report(prepare, "%s", message);
  return -1;
}

static int prepare(void *pointer, const KePrepare *prepare) {
  State *state = pointer;
  const int32_t *x = prepare->inputs[0].dims;
  if (ke_multi_bit_check_max_bits(prepare) != 0 || make_plan(state, prepare, x[1]) != 0) return -1;
  if (ke_multi_bit_dense_resize(state->plan, x[0]) != 0) {
    prepare->report(prepare, "Out of memory for a batch of %d.", x[0]);
    return -1;
  }
  const int32_t dims[2] = {x[0], state->shape.outputs};
  return prepare->set_output_shape(prepare, 0, 2, dims);
}

static int invoke(void *pointer, const KeInvoke *invoke) {
  State *state = pointer;
  const KeTensor *x = &invoke->inputs[0];
  const int32_t max_bits = ke_multi_bit_max_bits(&invoke->inputs[1]);
  if (ke_multi_bit_dense_run(state->plan, max_bits, x->data, invoke->outputs[0].data, invoke->parallel) != 0) {
    invoke->report(invoke, "The layer was run without a successful prepare.");
    return -1;
  }
  invoke->add_macs(invoke, (uint64_t)x->dims[0] * (uint64_t)x->dims[1] * (uint64_t)state->shape.outputs);
  return 0;
}

static const KeArgument arguments[] = {{"x", KE_ARGUMENT_INPUT, KE_TYPE_FLOAT32, 2}, KE_MULTI_BIT_ARGUMENTS};

static const int32_t output_types[] = {KE_TYPE_FLOAT32};

const KeOp ke_op_multi_bit_dense = {
    .name = "ke.multi_bit_dense",
    .version = KE_MULTI_BIT_DENSE_VERSION,
    .argument_count = sizeof(arguments) / sizeof(arguments[0]),
    .arguments = arguments,
    .output_count = 1,
    .output_types = output_types,
    .init = init,
    .prepare = prepare,
    .invoke = invoke,
    .destroy = destroy,
};
