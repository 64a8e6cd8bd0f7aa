/* The ops of this library: attributes and tensors in, kernel out. */
#ifndef KE_BUILTIN_OPS_H_
#define KE_BUILTIN_OPS_H_

#include "keras_efficient_plugin.h"

extern const KeOp ke_op_gate_net;
extern const KeOp ke_op_gate_net_int8;
extern const KeOp ke_op_gated_conv_2d;
extern const KeOp ke_op_gated_conv_2d_int8;
extern const KeOp ke_op_gated_depthwise_conv_2d;
extern const KeOp ke_op_multi_bit_dense;
extern const KeOp ke_op_multi_bit_dense_int8;
extern const KeOp ke_op_multi_bit_conv_2d;
extern const KeOp ke_op_multi_bit_conv_2d_int8;

#endif
