/* ke.gate_net and ke.gate_net_int8: x [B, H, W, C] float32 or int8, kernel [N, C], bias [N] -> g [B, N] float32. */
#include "kernels/gate_net/gate_net.h"

#include <stdlib.h>

#include "attributes.h"
#include "builtin.h"
#include "ke_attributes.h"

typedef struct State {
  KeGateNet *net;
  int32_t channels, gates;
  float input_scale; /* of an int8 input, as the zero point */
  int32_t input_zero_point;
} State;

static void destroy(void *pointer) {
  State *state = pointer;
  if (state == NULL) return;
  ke_gate_net_destroy(state->net);
  free(state);
}

static void *create(const KeInit *init, int32_t kind, float threshold, float input_scale, int32_t input_zero_point) {
  const KeTensor *kernel = &init->weights[0], *bias = &init->weights[1];
  if (kernel->dims[0] < 1 || kernel->dims[1] < 1 || bias->dims[0] != kernel->dims[0]) {
    init->report(init, "Invalid value for argument `kernel`. Expected at least one channel, and gates as many as `bias` has. "
                 "Received: [%d, %d] and %d.", kernel->dims[0], kernel->dims[1], bias->dims[0]);
    return NULL;
  }
  State *state = calloc(1, sizeof(*state));
  if (state == NULL) return NULL;
  *state = (State){NULL, kernel->dims[1], kernel->dims[0], input_scale, input_zero_point};
  KeGateNetShape shape = {state->channels, state->gates, kind, threshold, KE_ISA_SCALAR};
  if (ke_isa_parse(init->isa, &shape.isa) != 0) shape.isa = KE_ISA_SCALAR;
  state->net = ke_gate_net_create(&shape, kernel->data, bias->data);
  if (state->net != NULL) return state;
  init->report(init, "Not enough memory for %d channels.", state->channels);
  destroy(state);
  return NULL;
}

static void *init(const KeInit *init) {
  KeGateNetAttributes attributes;
  if (ke_attributes_decode(init, ke_gate_net_fields, sizeof(ke_gate_net_fields) / sizeof(ke_gate_net_fields[0]),
                           &attributes) != 0) {
    return NULL;
  }
  return create(init, attributes.gate, attributes.threshold, 1.0f, 0);
}

static void *init_int8(const KeInit *init) {
  KeGateNetInt8Attributes attributes;
  const size_t fields = sizeof(ke_gate_net_int8_fields) / sizeof(ke_gate_net_int8_fields[0]);
  if (ke_attributes_decode(init, ke_gate_net_int8_fields, fields, &attributes) != 0) return NULL;
  return create(init, attributes.gate, attributes.threshold, attributes.input_scale, attributes.input_zero_point);
}

static int prepare(void *pointer, const KePrepare *prepare) {
  const State *state = pointer;
  const int32_t *dims = prepare->inputs[0].dims;
  if (dims[1] < 1 || dims[2] < 1 || dims[3] != state->channels) {
    prepare->report(prepare, "Invalid value for argument `x`. Expected at least one pixel of %d channels, as the kernel has. "
                    "Received: [%d, %d, %d, %d].", state->channels, dims[0], dims[1], dims[2], dims[3]);
    return -1;
  }
  const int32_t output[2] = {dims[0], state->gates};
  if (prepare->set_output_shape(prepare, 0, 2, output) == 0) return 0;
  prepare->report(prepare, "Invalid value for argument `x`. Expected a batch whose gates fit into memory. Received: %d.", dims[0]);
  return -1;
}

static void count(const State *state, const KeInvoke *invoke) {
  invoke->add_macs(invoke, (uint64_t)invoke->inputs[0].dims[0] * (uint64_t)state->channels * (uint64_t)state->gates);
}

static int invoke(void *pointer, const KeInvoke *invoke) {
  const State *state = pointer;
  const KeTensor *x = &invoke->inputs[0];
  ke_gate_net_run(state->net, x->data, x->dims[0], (int64_t)x->dims[1] * x->dims[2], invoke->outputs[0].data);
  count(state, invoke);
  return 0;
}

static int invoke_int8(void *pointer, const KeInvoke *invoke) {
  const State *state = pointer;
  const KeTensor *x = &invoke->inputs[0];
  ke_gate_net_run_int8(state->net, x->data, x->dims[0], (int64_t)x->dims[1] * x->dims[2], state->input_scale,
                       state->input_zero_point, invoke->outputs[0].data);
  count(state, invoke);
  return 0;
}

#define ARGUMENTS(type)                                                                          \
  {                                                                                              \
    {"x", KE_ARGUMENT_INPUT, type, 4}, {"kernel", KE_ARGUMENT_WEIGHT, KE_TYPE_FLOAT32, 2},       \
        {"bias", KE_ARGUMENT_WEIGHT, KE_TYPE_FLOAT32, 1},                                        \
  }

static const KeArgument arguments[] = ARGUMENTS(KE_TYPE_FLOAT32);
static const KeArgument arguments_int8[] = ARGUMENTS(KE_TYPE_INT8);
static const int32_t output_types[] = {KE_TYPE_FLOAT32};

const KeOp ke_op_gate_net = {
    .name = "ke.gate_net",
    .version = KE_GATE_NET_VERSION,
    .argument_count = sizeof(arguments) / sizeof(arguments[0]),
    .arguments = arguments,
    .output_count = 1,
    .output_types = output_types,
    .init = init,
    .prepare = prepare,
    .invoke = invoke,
    .destroy = destroy,
};

const KeOp ke_op_gate_net_int8 = {
    .name = "ke.gate_net_int8",
    .version = KE_GATE_NET_INT8_VERSION,
    .argument_count = sizeof(arguments_int8) / sizeof(arguments_int8[0]),
    .arguments = arguments_int8,
    .output_count = 1,
    .output_types = output_types,
    .init = init_int8,
    .prepare = prepare,
    .invoke = invoke_int8,
    .destroy = destroy,
};
