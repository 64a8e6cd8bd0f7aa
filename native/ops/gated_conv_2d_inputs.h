/* What the gated convolutions of all types ask of their weights and inputs. */
#ifndef KE_GATED_CONV_2D_INPUTS_H_
#define KE_GATED_CONV_2D_INPUTS_H_

#include "kernels/gated_conv_2d/gated_conv_2d.h"
#include "keras_efficient_plugin.h"

/* Whether all four dimensions are at least 1; 0, or -1 after a report. */
int ke_gated_conv_2d_check_kernel(const KeInit *init, const KeTensor *kernel);

/* Whether there is one value for each output channel of the kernel; 0, or -1 after a report. */
int ke_gated_conv_2d_check_length(const KeInit *init, const char *name, const KeTensor *values, const KeTensor *kernel);

/* Checks x, g_in and g_out, the first three inputs, and sets the output's shape; 0, or -1 after a report. */
int ke_gated_conv_2d_check_inputs(const KePrepare *prepare, const KeGatedConv2DShape *shape);

/* For a plan that could not be sized; -1. */
int ke_gated_conv_2d_no_memory(const KePrepare *prepare);

#endif
