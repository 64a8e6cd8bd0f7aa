/* One row of the tables in ke_attributes.h: where an attribute goes and which values it may have. */
#ifndef KE_ATTRIBUTE_FIELD_H_
#define KE_ATTRIBUTE_FIELD_H_

#include <stddef.h>

typedef enum KeAttributeKind {
  KE_INT32 = 0,   /* int32_t */
  KE_FLOAT = 1, /* float */
} KeAttributeKind;

typedef struct KeAttributeField {
  const char *name;
  KeAttributeKind kind;
  size_t offset;
  double minimum, maximum; /* both inclusive */
} KeAttributeField;

#endif
