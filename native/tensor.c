#include "tensor.h"

#include <stdio.h>
#include <string.h>

const char *ke_type_name(int type) {
  switch (type) {
    case KE_TYPE_FLOAT32:
      return "float32";
    case KE_TYPE_INT32:
      return "int32";
    case KE_TYPE_UINT8:
      return "uint8";
    case KE_TYPE_INT64:
      return "int64";
    case KE_TYPE_BOOL:
      return "bool";
    case KE_TYPE_INT16:
      return "int16";
    case KE_TYPE_INT8:
      return "int8";
    default:
      return "another type";
  }
}

size_t ke_type_bytes(int type) {
  switch (type) {
    case KE_TYPE_INT64:
      return 8;
    case KE_TYPE_FLOAT32:
    case KE_TYPE_INT32:
      return 4;
    case KE_TYPE_INT16:
      return 2;
    case KE_TYPE_UINT8:
    case KE_TYPE_BOOL:
    case KE_TYPE_INT8:
      return 1;
    default:
      return 0;
  }
}

bool ke_tensor_bytes(int type, int rank, const int32_t *dims, size_t *bytes) {
  size_t limit = SIZE_MAX / 2, product = ke_type_bytes(type);
  if (product == 0) return false;
  bool empty = false;
  for (int i = 0; i < rank; i++) {
    if (dims[i] < 0) return false;
    if (dims[i] == 0) {
      empty = true;
      continue;
    }
    if ((size_t)dims[i] > limit / product) return false;
    product *= (size_t)dims[i];
  }
  *bytes = empty ? 0 : product;
  return true;
}

KeTfLiteTensor *ke_tensor_at(const KeTfLiteContext *context, int index) {
  if (index < 0 || (size_t)index >= context->tensors_size || context->tensors == NULL) return NULL;
  return &context->tensors[index];
}

int ke_tensor_check(const KeTfLiteTensor *tensor, const KeArgument *argument, KeReport *report) {
  int rank = tensor->dims == NULL ? 0 : tensor->dims->size;
  bool type_fits = argument->type == KE_TYPE_ANY ? ke_type_bytes(tensor->type) > 0 : tensor->type == argument->type;
  bool rank_fits = argument->rank < 0 ? rank <= KE_MAX_RANK : rank == argument->rank;
  if (type_fits && rank_fits) return 0;
  char expected[64] = "any rank";
  if (argument->rank >= 0) snprintf(expected, sizeof(expected), "rank %d", argument->rank);
  ke_report(report, "Invalid value for argument `%s`. Expected a tensor of %s and %s. Received: %s and rank %d.",
            argument->name, argument->type == KE_TYPE_ANY ? "a known type" : ke_type_name(argument->type), expected,
            ke_type_name(tensor->type), rank);
  return -1;
}

int ke_tensor_view(const KeTfLiteTensor *tensor, const char *name, bool with_data, KeTensor *view, KeReport *report) {
  int rank = tensor->dims == NULL ? 0 : tensor->dims->size;
  size_t bytes;
  if (rank < 0 || rank > KE_MAX_RANK ||
      !ke_tensor_bytes(tensor->type, rank, rank == 0 ? NULL : tensor->dims->data, &bytes)) {
    ke_report(report, "Invalid value for argument `%s`. Expected at most %d dimensions, none negative, that fit into memory. "
              "Received: rank %d and dimensions that do not.", name, KE_MAX_RANK, rank);
    return -1;
  }
  if (with_data && (tensor->bytes < bytes || (bytes > 0 && tensor->data == NULL))) {
    ke_report(report, "Invalid value for argument `%s`. Expected %zu bytes, as its dimensions say. Received: %zu.", name,
              bytes, tensor->data == NULL ? (size_t)0 : tensor->bytes);
    return -1;
  }
  if (with_data && (uintptr_t)tensor->data % ke_type_bytes(tensor->type) != 0) {
    ke_report(report, "Invalid value for argument `%s`. Expected data aligned to its elements. Received: an odd address.", name);
    return -1;
  }
  view->type = tensor->type;
  view->rank = rank;
  view->dims = rank == 0 ? NULL : tensor->dims->data;
  view->data = with_data ? tensor->data : NULL;
  view->bytes = bytes;
  view->scale = tensor->quantization_parameters.scale;
  view->zero_point = tensor->quantization_parameters.zero_point;
  return 0;
}

int ke_tensor_view_weight(const KeTfLiteTensor *tensor, const KeArgument *argument, KeTensor *view, KeReport *report) {
  if (ke_tensor_check(tensor, argument, report) != 0) return -1;
  if (tensor->allocation_type != kKeTfLiteMmapRo || tensor->data == NULL || tensor->is_variable ||
      tensor->sparsity != NULL) {
    ke_report(report, "Invalid value for argument `%s`. Expected a dense constant of the file. Received: a tensor that is %s.",
              argument->name, tensor->sparsity != NULL ? "sparse" : "none");
    return -1;
  }
  if (ke_tensor_view(tensor, argument->name, true, view, report) != 0) return -1;
  if (tensor->bytes != view->bytes) {
    ke_report(report, "Invalid value for argument `%s`. Expected %zu bytes, as its dimensions say. Received: %zu.",
              argument->name, view->bytes, tensor->bytes);
    return -1;
  }
  return 0;
}
