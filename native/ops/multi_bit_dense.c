/* ke.multi_bit_dense: x [B, N], bits uint8 [O, P, I, group_size / 8], scales [O, P, I], bias [O] -> y [B, O]. */
#include "kernels/multi_bit_dense/multi_bit_dense.h"

#include <stdlib.h>

#include "attributes.h"
#include "builtin.h"
#include "ke_attributes.h"

typedef struct State {
  KeMultiBitDenseShape shape;
  KeMultiBitDensePlan *plan;
} State;

static void destroy(void *pointer) {
  State *state = pointer;
  if (state == NULL) return;
  ke_multi_bit_dense_destroy(state->plan);
  free(state);
}

static int check_weights(const KeInit *init, int32_t group_size) {
  const int32_t *bits = init->weights[0].dims, *scales = init->weights[1].dims, *bias = init->weights[2].dims;
  if (group_size % 8 != 0) {
    init->report(init, "Invalid value for attribute `group_size`. Expected a multiple of 8. Received: %d.", group_size);
    return -1;
  }
  if (bits[0] < 1 || bits[1] < 1 || bits[2] < 1 || bits[3] != group_size / 8) {
    init->report(init, "Invalid value for argument `bits`. Expected shape [outputs, groups, bases, %d], none of them 0. "
                 "Received: [%d, %d, %d, %d].", group_size / 8, bits[0], bits[1], bits[2], bits[3]);
    return -1;
  }
  if (scales[0] != bits[0] || scales[1] != bits[1] || scales[2] != bits[2]) {
    init->report(init, "Invalid value for argument `scales`. Expected shape [%d, %d, %d]. Received: [%d, %d, %d].", bits[0],
                 bits[1], bits[2], scales[0], scales[1], scales[2]);
    return -1;
  }
  if (bias[0] != bits[0]) {
    init->report(init, "Invalid value for argument `bias`. Expected shape [%d]. Received: [%d].", bits[0], bias[0]);
    return -1;
  }
  return 0;
}

static void *init(const KeInit *init) {
  KeMultiBitDenseAttributes attributes;
  if (ke_attributes_decode(init, ke_multi_bit_dense_fields,
                           sizeof(ke_multi_bit_dense_fields) / sizeof(ke_multi_bit_dense_fields[0]), &attributes) != 0 ||
      check_weights(init, attributes.group_size) != 0) {
    return NULL;
  }
  State *state = calloc(1, sizeof(*state));
  if (state == NULL) return NULL;
  state->shape = (KeMultiBitDenseShape){.outputs = init->weights[0].dims[0],
                                        .groups = init->weights[0].dims[1],
                                        .bases = init->weights[0].dims[2],
                                        .group_size = attributes.group_size,
                                        .activation = attributes.activation};
  if (ke_isa_parse(init->isa, &state->shape.isa) != 0) state->shape.isa = KE_ISA_SCALAR;
  const char *error = NULL;
  state->plan = ke_multi_bit_dense_create(&state->shape, init->weights[0].data, init->weights[1].data, init->weights[2].data,
                                          &error);
  if (state->plan != NULL) return state;
  init->report(init, "The weights could not be packed. %s", error);
  destroy(state);
  return NULL;
}

static int prepare(void *pointer, const KePrepare *prepare) {
  const KeMultiBitDenseShape *shape = &((State *)pointer)->shape;
  const int32_t *x = prepare->inputs[0].dims;
  int64_t capacity = (int64_t)shape->groups * shape->group_size;
  if (x[1] > capacity || x[1] <= capacity - shape->group_size) {
    prepare->report(prepare, "Invalid value for argument `x`. Expected %lld to %lld features, as %d groups of %d hold. Received: "
                    "%d.", (long long)(capacity - shape->group_size + 1), (long long)capacity, shape->groups,
                    shape->group_size, x[1]);
    return -1;
  }
  int32_t dims[2] = {x[0], shape->outputs};
  return prepare->set_output_shape(prepare, 0, 2, dims);
}

static int invoke(void *pointer, const KeInvoke *invoke) {
  State *state = pointer;
  const KeTensor *x = &invoke->inputs[0];
  int32_t batch = x->dims[0], features = x->dims[1];
  if (ke_multi_bit_dense_run(state->plan, batch, features, x->data, invoke->outputs[0].data, invoke->parallel) != 0) {
    invoke->report(invoke, "Invalid value for argument `x`. Expected as many features as prepare saw. Received: %d.", features);
    return -1;
  }
  invoke->add_macs(invoke, (uint64_t)batch * (uint64_t)features * (uint64_t)state->shape.outputs);
  return 0;
}

static const KeArgument arguments[] = {
    {"x", KE_ARGUMENT_INPUT, KE_TYPE_FLOAT32, 2},
    {"bits", KE_ARGUMENT_WEIGHT, KE_TYPE_UINT8, 4},
    {"scales", KE_ARGUMENT_WEIGHT, KE_TYPE_FLOAT32, 3},
    {"bias", KE_ARGUMENT_WEIGHT, KE_TYPE_FLOAT32, 1},
};

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
