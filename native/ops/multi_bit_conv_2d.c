/* ke.multi_bit_conv_2d: x [B, H, W, I], max_bits, packed weights -> y [B, H', W', O]; ke.multi_bit_conv_2d_int8: the same
 * between int8 tensors; ke.multi_bit_dense_int8: x [B, N] -> y [B, O], a convolution of one tap over a row of samples. */
#include "kernels/multi_bit_conv_2d/multi_bit_conv_2d.h"

#include <stdlib.h>

#include "attributes.h"
#include "builtin.h"
#include "gated_conv_2d_inputs.h"
#include "ke_attributes.h"
#include "multi_bit_weights.h"

typedef struct State {
  KeMultiBitConv2DShape shape;
  KeMultiBitTensors tensors;
  KeMultiBitConv2DPlan *plan; /* for shape.conv.in_channels, which the first prepare tells */
  uint64_t macs;              /* of one batch */
} State;

static void destroy(void *pointer) {
  State *state = pointer;
  if (state == NULL) return;
  ke_multi_bit_conv_2d_destroy(state->plan);
  ke_multi_bit_free_weights(&state->tensors);
  free(state);
}

/* Both ops have these attributes. */
#define SHAPE_OF(attributes)                                                                                              \
  (KeMultiBitConv2DShape) {                                                                                               \
    .conv = {.kernel_h = (attributes).kernel_h, .kernel_w = (attributes).kernel_w, .stride_h = (attributes).stride_h,     \
             .stride_w = (attributes).stride_w, .dilation_h = (attributes).dilation_h,                                    \
             .dilation_w = (attributes).dilation_w, .padding = (attributes).padding,                                      \
             .activation = (attributes).activation},                                                                      \
    .order = (attributes).order, .group_size = (attributes).group_size, .bases = (attributes).bases,                      \
    .activation_bits = (attributes).activation_bits                                                                       \
  }

static void *make_state(const KeInit *init, KeMultiBitConv2DShape shape) {
  KeMultiBitTensors tensors;
  if (ke_multi_bit_read_weights(init, shape.activation_bits, &tensors) != 0) return NULL;
  State *state = calloc(1, sizeof(*state));
  if (state == NULL) {
    ke_multi_bit_free_weights(&tensors);
    return NULL;
  }
  state->tensors = tensors;
  state->shape = shape;
  state->shape.conv.out_channels = tensors.outputs;
  if (ke_isa_parse(init->isa, &state->shape.conv.isa) != 0) state->shape.conv.isa = KE_ISA_SCALAR;
  return state;
}

static void *init_float(const KeInit *init) {
  KeMultiBitConv2DAttributes attributes;
  if (ke_attributes_decode(init, ke_multi_bit_conv_2d_fields,
                           sizeof(ke_multi_bit_conv_2d_fields) / sizeof(ke_multi_bit_conv_2d_fields[0]),
                           &attributes) != 0) {
    return NULL;
  }
  return make_state(init, SHAPE_OF(attributes));
}

static void *init_int8(const KeInit *init) {
  KeMultiBitConv2DInt8Attributes attributes;
  if (ke_attributes_decode(init, ke_multi_bit_conv_2d_int8_fields,
                           sizeof(ke_multi_bit_conv_2d_int8_fields) / sizeof(ke_multi_bit_conv_2d_int8_fields[0]),
                           &attributes) != 0) {
    return NULL;
  }
  KeMultiBitConv2DShape shape = SHAPE_OF(attributes);
  shape.is_int8 = 1;
  shape.input_scale = attributes.input_scale;
  shape.input_zero_point = attributes.input_zero_point;
  shape.output_scale = attributes.output_scale;
  shape.output_zero_point = attributes.output_zero_point;
  return make_state(init, shape);
}

static void *init_dense_int8(const KeInit *init) {
  KeMultiBitDenseInt8Attributes attributes;
  if (ke_attributes_decode(init, ke_multi_bit_dense_int8_fields,
                           sizeof(ke_multi_bit_dense_int8_fields) / sizeof(ke_multi_bit_dense_int8_fields[0]),
                           &attributes) != 0) {
    return NULL;
  }
  const KeMultiBitConv2DShape shape = {
      .conv = {.kernel_h = 1, .kernel_w = 1, .stride_h = 1, .stride_w = 1, .dilation_h = 1, .dilation_w = 1,
               .activation = attributes.activation},
      .group_size = attributes.group_size,
      .bases = attributes.bases,
      .activation_bits = attributes.activation_bits,
      .is_int8 = 1,
      .input_scale = attributes.input_scale,
      .output_scale = attributes.output_scale,
      .input_zero_point = attributes.input_zero_point,
      .output_zero_point = attributes.output_zero_point,
  };
  return make_state(init, shape);
}

static int make_plan(State *state, const KePrepare *prepare, int32_t channels) {
  if (state->plan != NULL && state->shape.conv.in_channels == channels) return 0;
  ke_multi_bit_conv_2d_destroy(state->plan);
  state->shape.conv.in_channels = channels;
  char message[KE_MULTI_BIT_MESSAGE] = "";
  state->plan = ke_multi_bit_conv_2d_create(&state->shape, &state->tensors.streams, state->tensors.levels,
                                            state->tensors.bias, message, sizeof(message));
  if (state->plan != NULL) return 0;
  prepare->report(prepare, "%s", message);
  return -1;
}

static int prepare(void *pointer, const KePrepare *prepare) {
  State *state = pointer;
  const int32_t *x = prepare->inputs[0].dims;
  const KeGatedConv2DShape *conv = &state->shape.conv;
  int32_t dims[4] = {x[0], 0, 0, conv->out_channels};
  if (ke_multi_bit_check_max_bits(prepare) != 0 || make_plan(state, prepare, x[3]) != 0) return -1;
  if (ke_gated_conv_2d_output_size(conv, x[1], x[2], &dims[1], &dims[2]) != KE_GATED_CONV_2D_OK ||
      ke_multi_bit_conv_2d_resize(state->plan, x[0], x[1], x[2]) != KE_GATED_CONV_2D_OK) {
    return ke_gated_conv_2d_no_memory(prepare);
  }
  state->macs = (uint64_t)dims[1] * (uint64_t)dims[2] * (uint64_t)conv->kernel_h * (uint64_t)conv->kernel_w *
                (uint64_t)conv->in_channels * (uint64_t)conv->out_channels;
  return prepare->set_output_shape(prepare, 0, 4, dims);
}

static int prepare_dense(void *pointer, const KePrepare *prepare) {
  State *state = pointer;
  const int32_t *x = prepare->inputs[0].dims, dims[2] = {x[0], state->shape.conv.out_channels};
  if (ke_multi_bit_check_max_bits(prepare) != 0 || make_plan(state, prepare, x[1]) != 0) return -1;
  if (ke_multi_bit_conv_2d_resize(state->plan, 1, 1, x[0]) != KE_GATED_CONV_2D_OK) return ke_gated_conv_2d_no_memory(prepare);
  state->macs = (uint64_t)x[1] * (uint64_t)dims[1];
  return prepare->set_output_shape(prepare, 0, 2, dims);
}

static int invoke(void *pointer, const KeInvoke *invoke) {
  State *state = pointer;
  const KeTensor *inputs = invoke->inputs;
  if (ke_multi_bit_conv_2d_run(state->plan, ke_multi_bit_max_bits(&inputs[1]), inputs[0].data, invoke->outputs[0].data,
                               invoke->parallel) != KE_GATED_CONV_2D_OK) {
    invoke->report(invoke, "The convolution was run without a successful prepare.");
    return -1;
  }
  invoke->add_macs(invoke, (uint64_t)inputs[0].dims[0] * state->macs);
  return 0;
}

static const KeArgument float_arguments[] = {{"x", KE_ARGUMENT_INPUT, KE_TYPE_FLOAT32, 4}, KE_MULTI_BIT_ARGUMENTS};
static const KeArgument int8_arguments[] = {{"x", KE_ARGUMENT_INPUT, KE_TYPE_INT8, 4}, KE_MULTI_BIT_ARGUMENTS};

static const KeArgument dense_int8_arguments[] = {{"x", KE_ARGUMENT_INPUT, KE_TYPE_INT8, 2}, KE_MULTI_BIT_ARGUMENTS};

static const int32_t float_output[] = {KE_TYPE_FLOAT32};
static const int32_t int8_output[] = {KE_TYPE_INT8};

const KeOp ke_op_multi_bit_conv_2d = {
    .name = "ke.multi_bit_conv_2d",
    .version = KE_MULTI_BIT_CONV_2D_VERSION,
    .argument_count = sizeof(float_arguments) / sizeof(float_arguments[0]),
    .arguments = float_arguments,
    .output_count = 1,
    .output_types = float_output,
    .init = init_float,
    .prepare = prepare,
    .invoke = invoke,
    .destroy = destroy,
};

const KeOp ke_op_multi_bit_conv_2d_int8 = {
    .name = "ke.multi_bit_conv_2d_int8",
    .version = KE_MULTI_BIT_CONV_2D_INT8_VERSION,
    .argument_count = sizeof(int8_arguments) / sizeof(int8_arguments[0]),
    .arguments = int8_arguments,
    .output_count = 1,
    .output_types = int8_output,
    .init = init_int8,
    .prepare = prepare,
    .invoke = invoke,
    .destroy = destroy,
};

const KeOp ke_op_multi_bit_dense_int8 = {
    .name = "ke.multi_bit_dense_int8",
    .version = KE_MULTI_BIT_DENSE_INT8_VERSION,
    .argument_count = sizeof(dense_int8_arguments) / sizeof(dense_int8_arguments[0]),
    .arguments = dense_int8_arguments,
    .output_count = 1,
    .output_types = int8_output,
    .init = init_dense_int8,
    .prepare = prepare_dense,
    .invoke = invoke,
    .destroy = destroy,
};
