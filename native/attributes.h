/* Attributes of an op, read from the file with their ranges checked: the readers of KeInit and the table-driven decoder
 * that the built-in ops use. */
#ifndef KE_ATTRIBUTES_READER_H_
#define KE_ATTRIBUTES_READER_H_

#include "flexbuffer.h"
#include "ke_attribute_field.h"
#include "keras_efficient_plugin.h"
#include "report.h"

/* What KeInit.host points to. */
typedef struct KeAttributeReader {
  KeFlexMap map;
  KeReport *report;
} KeAttributeReader;

/* Opens the map and points the readers of `init` at it; 0, or -1 after a report. */
int ke_attributes_open(KeAttributeReader *reader, const uint8_t *bytes, size_t size, KeReport *report, KeInit *init);

/* Fills the structure at `attributes` by the table; 0, or -1 after a report. */
int ke_attributes_decode(const KeInit *init, const KeAttributeField *fields, size_t count, void *attributes);

#endif
