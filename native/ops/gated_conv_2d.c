/* ke.gated_conv_2d: x [B, H, W, Ci], g_in [B, Ci], g_out [B, Co], kernel [Co, kh, kw, Ci], bias [Co] -> y [B, Ho, Wo, Co]. */
#include "kernels/gated_conv_2d/gated_conv_2d.h"

#include <stdlib.h>

#include "attributes.h"
#include "builtin.h"
#include "gated_conv_2d_inputs.h"
#include "ke_attributes.h"

typedef struct State {
  KeGatedConv2DShape shape;
  KeGatedConv2DPlan *plan;
} State;

static void destroy(void *pointer) {
  State *state = pointer;
  if (state == NULL) return;
  ke_gated_conv_2d_destroy(state->plan);
  free(state);
}

static void *init(const KeInit *init) {
  KeGatedConv2DAttributes attributes;
  if (ke_attributes_decode(init, ke_gated_conv_2d_fields,
                           sizeof(ke_gated_conv_2d_fields) / sizeof(ke_gated_conv_2d_fields[0]), &attributes) != 0) {
    return NULL;
  }
  const KeTensor *kernel = &init->weights[0], *bias = &init->weights[1];
  if (ke_gated_conv_2d_check_kernel(init, kernel) != 0 ||
      ke_gated_conv_2d_check_length(init, "bias", bias, kernel->dims[0]) != 0) {
    return NULL;
  }
  State *state = calloc(1, sizeof(*state));
  if (state == NULL) return NULL;
  state->shape = (KeGatedConv2DShape){.kernel_h = kernel->dims[1],
                                      .kernel_w = kernel->dims[2],
                                      .in_channels = kernel->dims[3],
                                      .out_channels = kernel->dims[0],
                                      .stride_h = attributes.stride_h,
                                      .stride_w = attributes.stride_w,
                                      .dilation_h = attributes.dilation_h,
                                      .dilation_w = attributes.dilation_w,
                                      .padding = attributes.padding,
                                      .activation = attributes.activation};
  if (ke_isa_parse(init->isa, &state->shape.isa) != 0) state->shape.isa = KE_ISA_SCALAR;
  const char *error = NULL;
  state->plan = ke_gated_conv_2d_create(&state->shape, kernel->data, bias->data, &error);
  if (state->plan != NULL) return state;
  init->report(init, "%s", error == NULL ? "The weights could not be packed." : error);
  destroy(state);
  return NULL;
}

static int prepare(void *pointer, const KePrepare *prepare) {
  State *state = pointer;
  const int32_t *dims = prepare->inputs[0].dims;
  if (ke_gated_conv_2d_check_inputs(prepare, &state->shape, true) != 0) return -1;
  const int status = ke_gated_conv_2d_resize(state->plan, dims[0], dims[1], dims[2], prepare->threads);
  return status == KE_GATED_CONV_2D_OK ? 0 : ke_gated_conv_2d_no_memory(prepare);
}

static int invoke(void *pointer, const KeInvoke *invoke) {
  State *state = pointer;
  const KeTensor *inputs = invoke->inputs;
  uint64_t macs = 0;
  if (ke_gated_conv_2d_run(state->plan, inputs[0].data, inputs[1].data, inputs[2].data, invoke->outputs[0].data,
                           invoke->parallel, &macs) != KE_GATED_CONV_2D_OK) {
    invoke->report(invoke, "The convolution was run without a successful prepare.");
    return -1;
  }
  invoke->add_macs(invoke, macs);
  return 0;
}

static const KeArgument arguments[] = {
    {"x", KE_ARGUMENT_INPUT, KE_TYPE_FLOAT32, 4},       {"g_in", KE_ARGUMENT_INPUT, KE_TYPE_FLOAT32, 2},
    {"g_out", KE_ARGUMENT_INPUT, KE_TYPE_FLOAT32, 2},   {"kernel", KE_ARGUMENT_WEIGHT, KE_TYPE_FLOAT32, 4},
    {"bias", KE_ARGUMENT_WEIGHT, KE_TYPE_FLOAT32, 1},
};

static const int32_t output_types[] = {KE_TYPE_FLOAT32};

const KeOp ke_op_gated_conv_2d = {
    .name = "ke.gated_conv_2d",
    .version = KE_GATED_CONV_2D_VERSION,
    .argument_count = sizeof(arguments) / sizeof(arguments[0]),
    .arguments = arguments,
    .output_count = 1,
    .output_types = output_types,
    .init = init,
    .prepare = prepare,
    .invoke = invoke,
    .destroy = destroy,
};
