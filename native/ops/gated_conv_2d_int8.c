/* ke.gated_conv_2d_int8: x [B, H, W, Ci] int8, g_in [B, Ci], g_out [B, Co], kernel [Co, kh, kw, Ci] int8, kernel_scale
 * [Co], bias [Co] int32 -> y [B, Ho, Wo, Co] int8. */
#include "kernels/gated_conv_2d_int8/gated_conv_2d_int8.h"

#include <stdlib.h>

#include "attributes.h"
#include "builtin.h"
#include "gated_conv_2d_inputs.h"
#include "ke_attributes.h"

typedef struct State {
  KeGatedConv2DInt8Shape shape;
  KeGatedConv2DInt8Plan *plan;
} State;

static void destroy(void *pointer) {
  State *state = pointer;
  if (state == NULL) return;
  ke_gated_conv_2d_int8_destroy(state->plan);
  free(state);
}

static void *init(const KeInit *init) {
  KeGatedConv2DInt8Attributes attributes;
  if (ke_attributes_decode(init, ke_gated_conv_2d_int8_fields,
                           sizeof(ke_gated_conv_2d_int8_fields) / sizeof(ke_gated_conv_2d_int8_fields[0]), &attributes) != 0) {
    return NULL;
  }
  const KeTensor *kernel = &init->weights[0], *scale = &init->weights[1], *bias = &init->weights[2];
  if (ke_gated_conv_2d_check_kernel(init, kernel) != 0 ||
      ke_gated_conv_2d_check_length(init, "kernel_scale", scale, kernel->dims[0]) != 0 ||
      ke_gated_conv_2d_check_length(init, "bias", bias, kernel->dims[0]) != 0) {
    return NULL;
  }
  State *state = calloc(1, sizeof(*state));
  if (state == NULL) return NULL;
  const KeGatedConv2DShape conv = {.kernel_h = kernel->dims[1],
                                   .kernel_w = kernel->dims[2],
                                   .in_channels = kernel->dims[3],
                                   .out_channels = kernel->dims[0],
                                   .stride_h = attributes.stride_h,
                                   .stride_w = attributes.stride_w,
                                   .dilation_h = attributes.dilation_h,
                                   .dilation_w = attributes.dilation_w,
                                   .padding = attributes.padding,
                                   .activation = attributes.activation};
  state->shape = (KeGatedConv2DInt8Shape){.conv = conv,
                                          .input_scale = attributes.input_scale,
                                          .output_scale = attributes.output_scale,
                                          .input_zero_point = attributes.input_zero_point,
                                          .output_zero_point = attributes.output_zero_point};
  if (ke_isa_parse(init->isa, &state->shape.conv.isa) != 0) state->shape.conv.isa = KE_ISA_SCALAR;
  const char *error = NULL;
  state->plan = ke_gated_conv_2d_int8_create(&state->shape, kernel->data, scale->data, bias->data, &error);
  if (state->plan != NULL) return state;
  init->report(init, "%s", error == NULL ? "The weights could not be packed." : error);
  destroy(state);
  return NULL;
}

static int prepare(void *pointer, const KePrepare *prepare) {
  State *state = pointer;
  const int32_t *dims = prepare->inputs[0].dims;
  if (ke_gated_conv_2d_check_inputs(prepare, &state->shape.conv, true) != 0) return -1;
  const int status = ke_gated_conv_2d_int8_resize(state->plan, dims[0], dims[1], dims[2], prepare->threads);
  return status == KE_GATED_CONV_2D_OK ? 0 : ke_gated_conv_2d_no_memory(prepare);
}

static int invoke(void *pointer, const KeInvoke *invoke) {
  State *state = pointer;
  const KeTensor *inputs = invoke->inputs;
  uint64_t macs = 0;
  if (ke_gated_conv_2d_int8_run(state->plan, inputs[0].data, inputs[1].data, inputs[2].data, invoke->outputs[0].data,
                           invoke->parallel, &macs) != KE_GATED_CONV_2D_OK) {
    invoke->report(invoke, "The convolution was run without a successful prepare.");
    return -1;
  }
  invoke->add_macs(invoke, macs);
  return 0;
}

static const KeArgument arguments[] = {
    {"x", KE_ARGUMENT_INPUT, KE_TYPE_INT8, 4},       {"g_in", KE_ARGUMENT_INPUT, KE_TYPE_FLOAT32, 2},
    {"g_out", KE_ARGUMENT_INPUT, KE_TYPE_FLOAT32, 2}, {"kernel", KE_ARGUMENT_WEIGHT, KE_TYPE_INT8, 4},
    {"kernel_scale", KE_ARGUMENT_WEIGHT, KE_TYPE_FLOAT32, 1}, {"bias", KE_ARGUMENT_WEIGHT, KE_TYPE_INT32, 1},
};

static const int32_t output_types[] = {KE_TYPE_INT8};

const KeOp ke_op_gated_conv_2d_int8 = {
    .name = "ke.gated_conv_2d_int8",
    .version = KE_GATED_CONV_2D_INT8_VERSION,
    .argument_count = sizeof(arguments) / sizeof(arguments[0]),
    .arguments = arguments,
    .output_count = 1,
    .output_types = output_types,
    .init = init,
    .prepare = prepare,
    .invoke = invoke,
    .destroy = destroy,
};
