/* Looks at the runtime's tensors with checks, so that no kernel ever sees dimensions that its bytes do not bear out. */
#ifndef KE_TENSOR_H_
#define KE_TENSOR_H_

#include <stdbool.h>

#include "ke_tflite_abi.h"
#include "keras_efficient_plugin.h"
#include "report.h"

/* "float32" and so on; "another type" for types that no op takes. */
const char *ke_type_name(int type);

/* Bytes of one element, 0 for types that no op takes. */
size_t ke_type_bytes(int type);

/* The product of the dimensions times the element's bytes; false when a dimension is negative or the product does not fit
 * into half of the address space. */
bool ke_tensor_bytes(int type, int rank, const int32_t *dims, size_t *bytes);

/* NULL when the index is none of the context's. */
KeTfLiteTensor *ke_tensor_at(const KeTfLiteContext *context, int index);

/* Type and rank as the op's table wants them. */
int ke_tensor_check(const KeTfLiteTensor *tensor, const KeArgument *argument, KeReport *report);

/* A tensor whose shape is known: checks the dimensions, and, when `with_data`, that bytes and data bear them out. */
int ke_tensor_view(const KeTfLiteTensor *tensor, const char *name, bool with_data, KeTensor *view, KeReport *report);

/* A weight: a dense constant of the file that passes all of the above. */
int ke_tensor_view_weight(const KeTfLiteTensor *tensor, const KeArgument *argument, KeTensor *view, KeReport *report);

#endif
