/* Six weights at a time by table of bytes. For six inputs there are 64 signed sums, kept in 8 bits relative to the largest of
 * their group; a permutation of bytes looks them up for 64 rows at once: 384 multiply-accumulates in an instruction, four with
 * the additions in 16 bits.
 *
 * A row is a basis of an output in a group: rows that are not there take no time, and what the others give is spread over the
 * outputs by masks. Those of a segment of outputs and a group follow each other, basis by basis, 64 to a block. Weights are
 * read in sequence; they are a third larger than their bits, since two of eight stay free:
 *
 *   [segment][group][8 blocks][table][block][64 rows]   bytes, each the index of a row's six signs
 *
 * Even bytes are the rows 0 to 31 of a block, odd ones those from 32 on: as 16-bit numbers found bytes are added up in one sum,
 * where those of the odd ones overflow, and shifted in another, which has the odd ones alone.
 *
 * Of a group's inputs, in `tables` parts of equal length, table t takes the t-th of each.
 *
 * The largest sums of a table are a group's unit, so a sum is off by at most 1/254 of it. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "internal.h"

enum { kLanes = 16, kRows = 64, kInputs = 6, kTable = 64, kMostSegment = 512, kTogether = 8 };
enum { kMostTables = 256 }; /* so many bytes add up to 16 bits */

/* The rows of one segment and group. */
typedef struct Rows {
  size_t data, scales;                  /* where they begin: vectors of 64 bytes, floats */
  int32_t count;                        /* of all bases */
  int32_t live[KE_MULTI_BIT_MAX_WIDTH]; /* how many outputs have each basis */
} Rows;

/* What `weights` begins with. */
typedef struct Layout {
  int32_t segment; /* outputs, a multiple of 16 */
  size_t rows, data, scales, masks; /* bytes from `weights` on */
  size_t total;
} Layout;

static int32_t segment_of(int32_t outputs) {
  int32_t segments = (outputs - 1) / kMostSegment + 1;
  if (segments == 1 && outputs >= 256) segments = 2; /* something to share between threads */
  const int32_t each = (outputs - 1) / segments + 1;
  return (each + kLanes - 1) / kLanes * kLanes;
}

static int32_t lanes(const KeMultiBitDensePlan *plan) { return segment_of(plan->packed.outputs); }

static size_t tables_of(const KePackedWeights *packed) { return ((size_t)packed->group_size + kInputs - 1) / kInputs; }

static size_t blocks_of(int32_t rows) { return ((size_t)rows + kRows - 1) / kRows; }

static int32_t outputs_of(const KePackedWeights *packed, int32_t segment, int32_t size) {
  const int32_t left = packed->outputs - segment * size;
  return left < size ? left : size;
}

static int has_basis(const KePackedWeights *packed, int32_t o, int32_t p, int32_t basis) {
  return basis < packed->widths[(size_t)o * (size_t)packed->groups + (size_t)p];
}

static Rows count_rows(const KePackedWeights *packed, int32_t segment, int32_t size, int32_t p) {
  const int32_t first = segment * size, outputs = outputs_of(packed, segment, size);
  Rows rows = {0};
  for (int32_t i = 0; i < packed->bases; i++) {
    for (int32_t o = first; o < first + outputs; o++) rows.live[i] += has_basis(packed, o, p, i);
    rows.count += rows.live[i];
  }
  return rows;
}

static Layout lay_out(const KeMultiBitDensePlan *plan) {
  const KePackedWeights *packed = &plan->packed;
  Layout layout = {.segment = segment_of(packed->outputs)};
  const int32_t segments = (packed->outputs - 1) / layout.segment + 1;
  const size_t lists = (size_t)segments * (size_t)packed->groups;
  size_t blocks = 0;
  for (int32_t s = 0; s < segments; s++) {
    for (int32_t p = 0; p < packed->groups; p++) blocks += blocks_of(count_rows(packed, s, layout.segment, p).count);
  }
  layout.rows = (sizeof(Layout) + 63) / 64 * 64;
  layout.data = layout.rows + (lists * sizeof(Rows) + 63) / 64 * 64;
  layout.scales = layout.data + blocks * tables_of(packed) * kRows;
  layout.masks = layout.scales + blocks * kRows * sizeof(float);
  layout.total = layout.masks + lists * (size_t)packed->bases * (size_t)layout.segment / kLanes * sizeof(uint16_t);
  return layout;
}

static size_t weight_bytes(const KeMultiBitDensePlan *plan) { return lay_out(plan).total; }

/* Tables, then a unit for each group. */
static size_t sample_bytes(const KeMultiBitDensePlan *plan) {
  const size_t groups = (size_t)plan->packed.groups;
  return groups * tables_of(&plan->packed) * kTable + groups * sizeof(float);
}

/* Where a table has the sum with these signs, by the way that it is filled. */
static uint8_t index_of(uint32_t signs) {
  const uint32_t negated = signs >> 5, kept = (negated ? ~signs : signs) & 31u;
  return (uint8_t)(kept << 1 | negated);
}

/* Where the index of a row, the `place`-th of `count`, lies for the first table, and how far it is to the next. */
static size_t first_byte(int32_t place, int32_t count, size_t tables, size_t *pitch) {
  const size_t block = (size_t)place / kRows, first = block / kTogether * kTogether, left = blocks_of(count) - first;
  const size_t row = (size_t)place % kLanes, sixteen = (size_t)place % kRows / kLanes;
  *pitch = (left < kTogether ? left : kTogether) * kRows;
  /* As they are unpacked again: the first and the second half of each eight even bytes, then those of the odd ones. */
  const size_t word = row / 4 * 8 + sixteen % 2 * 4 + row % 4;
  return first * tables * kRows + (block - first) * kRows + 2 * word + sixteen / 2;
}

static void pack_row(const KePackedWeights *packed, size_t row, int32_t place, int32_t count, uint8_t *data) {
  enum { WORD = 32 };
  const int32_t tables = (int32_t)tables_of(packed);
  size_t pitch;
  uint8_t *to = data + first_byte(place, count, (size_t)tables, &pitch);
  for (int32_t t = 0; t < tables; t += WORD) {
    const int32_t width = tables - t < WORD ? tables - t : WORD;
    uint32_t parts[kInputs];
    for (int32_t j = 0; j < kInputs; j++) {
      const int32_t k = t + j * tables, left = packed->group_size - k;
      parts[j] = left <= 0 ? 0 : ke_packed_bits(packed, row, k, left < width ? left : width);
    }
    for (int32_t u = 0; u < width; u++, to += pitch) {
      uint32_t signs = 0;
      for (int32_t j = 0; j < kInputs; j++) signs |= (parts[j] >> u & 1u) << j;
      *to = index_of(signs);
    }
  }
}

static void pack(KeMultiBitDensePlan *plan) {
  const KePackedWeights *packed = &plan->packed;
  const Layout layout = lay_out(plan);
  uint8_t *memory = plan->weights;
  memset(memory, 0, layout.total);
  memcpy(memory, &layout, sizeof(layout));
  Rows *rows = (Rows *)(void *)(memory + layout.rows);
  float *scales = (float *)(void *)(memory + layout.scales);
  uint16_t *masks = (uint16_t *)(void *)(memory + layout.masks);
  size_t blocks = 0;
  for (int32_t s = 0; s < plan->blocks; s++) {
    for (int32_t p = 0; p < packed->groups; p++, rows++) {
      *rows = count_rows(packed, s, layout.segment, p);
      rows->data = blocks * tables_of(packed);
      rows->scales = blocks * kRows;
      blocks += blocks_of(rows->count);
      int32_t place = 0;
      for (int32_t i = 0; i < packed->bases; i++, masks += layout.segment / kLanes) {
        for (int32_t k = 0; k < outputs_of(packed, s, layout.segment); k++) {
          const int32_t o = s * layout.segment + k;
          if (!has_basis(packed, o, p, i)) continue;
          const size_t row = packed->first[(size_t)o * (size_t)packed->groups + (size_t)p] + (size_t)i;
          pack_row(packed, row, place, rows->count, memory + layout.data + rows->data * kRows);
          scales[rows->scales + (size_t)place++] = packed->scales[row];
          masks[k / kLanes] |= (uint16_t)(1u << (k % kLanes));
        }
      }
    }
  }
}

static inline __mmask16 first_of(int32_t count) {
  return count >= kLanes ? 0xFFFF : count <= 0 ? 0 : (__mmask16)((1u << count) - 1u);
}

/* The inputs of a group. */
typedef struct Inputs {
  const float *x;
  int32_t count, tables;
} Inputs;

/* The j-th input of 16 tables from t on; 0 behind the last one. */
static inline __m512 inputs_of(const Inputs *group, int32_t t, int32_t j) {
  const int32_t k = t + j * group->tables, left = group->count - k;
  return left >= kLanes ? _mm512_loadu_ps(group->x + k) : _mm512_maskz_loadu_ps(first_of(left), group->x + k);
}

/* The largest sum of magnitudes in a table; NaN where an input is no finite number. */
static float largest_sum(const Inputs *group) {
  __m512i largest = _mm512_setzero_si512(); /* magnitudes are in the same order as their bits, infinity and NaN the largest */
  for (int32_t t = 0; t < group->tables; t += kLanes) {
    __m512 sum = _mm512_abs_ps(inputs_of(group, t, 0));
    for (int32_t j = 1; j < kInputs; j++) sum = _mm512_add_ps(sum, _mm512_abs_ps(inputs_of(group, t, j)));
    largest = _mm512_mask_max_epi32(largest, first_of(group->tables - t), largest, _mm512_castps_si512(sum));
  }
  const float sum = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(largest))));
  return sum - sum == 0.0f ? sum : NAN;
}

/* Sums of three inputs each, scaled, for 16 tables. */
typedef struct Parts {
  _Alignas(64) int16_t first[kLanes][8]; /* of the inputs 0 to 2, by their signs */
  _Alignas(64) int16_t last[kLanes][4];  /* of 3 to 5, the last one plus, and what rounds and makes them positive */
} Parts;

/* Parts have 8 bits behind the point. Table 4 l + i is at place 4 i + l of `first`; of `last`, the first two of four
 * tables come first. */
enum { kPoint = 8, kOffset = 128 - 32768 }; /* a half, and 128 modulo 256 */

static inline __m512i words(__m512i low, __m512i high) {
  return _mm512_mask_blend_epi16(0xAAAAAAAA, low, _mm512_slli_epi32(high, 16));
}

static inline __m512i negated(__m512i both) { return _mm512_ror_epi32(_mm512_sub_epi16(_mm512_setzero_si512(), both), 16); }

static inline void sum_parts(const Inputs *group, int32_t t, __m512 scale, Parts *parts) {
#define KE_INPUT(j) _mm512_mul_ps(scale, inputs_of(group, t, j))
#define KE_ROUND(sum) _mm512_cvtps_epi32(sum)
  const __m512 x0 = KE_INPUT(0), x1 = KE_INPUT(1), x2 = KE_INPUT(2), x3 = KE_INPUT(3), x4 = KE_INPUT(4), x5 = KE_INPUT(5);
  const __m512 plus = _mm512_add_ps(x1, x0), minus = _mm512_sub_ps(x1, x0);
  const __m512i a01 = words(KE_ROUND(_mm512_add_ps(x2, plus)), KE_ROUND(_mm512_add_ps(x2, minus)));
  const __m512i a23 = words(KE_ROUND(_mm512_sub_ps(x2, minus)), KE_ROUND(_mm512_sub_ps(x2, plus)));
  const __m512i a45 = negated(a23), a67 = negated(a01);
  const __m512i low03 = _mm512_unpacklo_epi32(a01, a23), high03 = _mm512_unpackhi_epi32(a01, a23);
  const __m512i low47 = _mm512_unpacklo_epi32(a45, a67), high47 = _mm512_unpackhi_epi32(a45, a67);
  _mm512_store_si512(parts->first[0], _mm512_unpacklo_epi64(low03, low47));
  _mm512_store_si512(parts->first[4], _mm512_unpackhi_epi64(low03, low47));
  _mm512_store_si512(parts->first[8], _mm512_unpacklo_epi64(high03, high47));
  _mm512_store_si512(parts->first[12], _mm512_unpackhi_epi64(high03, high47));
  const __m512 plus2 = _mm512_add_ps(x4, x3), minus2 = _mm512_sub_ps(x4, x3);
  const __m512i offset = _mm512_set1_epi16(kOffset);
  const __m512i b01 = words(KE_ROUND(_mm512_add_ps(x5, plus2)), KE_ROUND(_mm512_add_ps(x5, minus2)));
  const __m512i b23 = words(KE_ROUND(_mm512_sub_ps(x5, minus2)), KE_ROUND(_mm512_sub_ps(x5, plus2)));
  const __m512i c01 = _mm512_add_epi16(b01, offset), c23 = _mm512_add_epi16(b23, offset);
  _mm512_store_si512(parts->last[0], _mm512_unpacklo_epi32(c01, c23));
  _mm512_store_si512(parts->last[8], _mm512_unpackhi_epi32(c01, c23));
#undef KE_ROUND
#undef KE_INPUT
}

/* Every sum of six inputs and 128, side by side with its negative and 128. */
static inline void fill(const int16_t *first, const int16_t *last, uint8_t *table) {
  static const int16_t each[32] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3};
  const __m512i four = _mm512_castsi128_si512(_mm_loadl_epi64((const void *)last));
  const __m512i four_times_eight = _mm512_permutexvar_epi16(_mm512_loadu_si512(each), four);
  const __m512i eight = _mm512_broadcast_i32x4(_mm_load_si128((const void *)first));
  const __m512i sums = _mm512_add_epi16(four_times_eight, eight);
  const __m512i negatives = _mm512_sub_epi16(_mm512_set1_epi16(256), sums), upper = _mm512_set1_epi16(-256);
  /* (negatives & upper) | (sums >> 8) */
  _mm512_store_si512(table, _mm512_ternarylogic_epi32(negatives, upper, _mm512_srli_epi16(sums, kPoint), 0xEA));
}

static void fill_group(const Inputs *group, float unit, uint8_t *table) {
  enum { CHUNKS = 4 }; /* side by side, since each waits for its own sums */
  const __m512 scale = _mm512_set1_ps(unit > 0.0f ? (127 << kPoint) / unit : 0.0f);
  Parts parts[CHUNKS];
  for (int32_t t = 0; t < group->tables; t += CHUNKS * kLanes) {
    const int32_t left = group->tables - t;
    for (int32_t c = 0; c < CHUNKS && c * kLanes < left; c++) sum_parts(group, t + c * kLanes, scale, &parts[c]);
    __asm__ volatile("" : : "r"(parts) : "memory"); /* to be loaded: moving them between registers takes longer */
    for (int32_t c = 0; c < CHUNKS && c * kLanes < left; c++, table += kLanes * kTable) {
#pragma GCC unroll 16
      for (int32_t i = 0; i < kLanes; i++) {
        if (c * kLanes + i == left) return;
        fill(parts[c].first[i % 4 * 4 + i / 4], parts[c].last[i % 4 / 2 * 8 + i / 4 * 2 + i % 2], table + i * kTable);
      }
    }
  }
}

static Inputs group_of(const KePackedWeights *packed, const float *x, int32_t p) {
  return (Inputs){x + (size_t)p * (size_t)packed->group_size, ke_packed_group_length(packed, p), (int32_t)tables_of(packed)};
}

static void take_sample(KeMultiBitDensePlan *plan, int32_t inputs, const float *x) {
  const KePackedWeights *packed = &plan->packed;
  const size_t table_bytes = tables_of(packed) * kTable;
  uint8_t *tables = plan->sample;
  float *units = (float *)(void *)(tables + (size_t)packed->groups * table_bytes);
  (void)inputs;
  for (int32_t p = 0; p < packed->groups; p++) {
    const Inputs group = group_of(packed, x, p);
    units[p] = largest_sum(&group);
  }
  for (int32_t p = 0; p < packed->groups; p++, tables += table_bytes) {
    const Inputs group = group_of(packed, x, p);
    fill_group(&group, units[p], tables);
    units[p] /= 127.0f;
  }
}

/* What blocks of rows give goes to `to`, added to what is there if `adds`; behind `wrap` rows it begins again. */
typedef struct Target {
  float *to;
  int32_t adds, wrap;
  __m512 unit;
} Target;

/* 16 sums of a block, as floats 2^23 above what they are. */
static inline __attribute__((always_inline)) void add_lanes(__m512i sums, __m512 offset, const float *scales, __m512 unit,
                                                            int adds, float *to) {
  const __m512 found = _mm512_sub_ps(_mm512_castsi512_ps(sums), offset);
  const __m512 scale = _mm512_mul_ps(_mm512_load_ps(scales), unit);
  _mm512_store_ps(to, adds ? _mm512_fmadd_ps(found, scale, _mm512_load_ps(to)) : _mm512_mul_ps(found, scale));
}

/* Looks a vector of indices up; in assembly, or gcc copies the sums. */
#define KE_LOOK_UP(b)                                                                                             \
  if (b < count) {                                                                                                \
    __m512i found;                                                                                                \
    __asm__("vpermb %2, %1, %0" : "=v"(found) : "v"(_mm512_load_si512(data + (b) * kRows)), "v"(table));           \
    __asm__("vpaddw %1, %0, %0" : "+v"(both##b) : "v"(found));                                                    \
    found = _mm512_srli_epi16(found, 8);                                                                          \
    __asm__("vpaddw %1, %0, %0" : "+v"(odd##b) : "v"(found));                                                     \
  }
#define KE_ADD(b)                                                                                                 \
  if (b < count) {                                                                                                \
    const __m512i even = _mm512_sub_epi16(both##b, _mm512_slli_epi16(odd##b, 8));                                  \
    const float *scale = scales + (b) * kRows;                                                                    \
    float *to = y + place;                                                                                        \
    add_lanes(_mm512_unpacklo_epi16(even, upper), offset, scale, unit, adds, to);                                 \
    add_lanes(_mm512_unpackhi_epi16(even, upper), offset, scale + kLanes, unit, adds, to + kLanes);               \
    add_lanes(_mm512_unpacklo_epi16(odd##b, upper), offset, scale + 2 * kLanes, unit, adds, to + 2 * kLanes);     \
    add_lanes(_mm512_unpackhi_epi16(odd##b, upper), offset, scale + 3 * kLanes, unit, adds, to + 3 * kLanes);     \
    place = place + kRows == wrap ? 0 : place + kRows;                                                            \
  }
#define KE_DECLARE(b) __m512i both##b = _mm512_setzero_si512(), odd##b = both##b;
#define KE_EACH_BLOCK(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)

/* `count` blocks, a constant after inlining, of those that lie together, `pitch` bytes for each table. */
static inline __attribute__((always_inline)) void add_blocks(const uint8_t *tables, size_t table_count, const uint8_t *data,
                                                             size_t pitch, const int count, const float *scales,
                                                             int32_t first_place, const Target *at) {
  float *y = at->to; /* stores might change what `at` says */
  const int32_t wrap = at->wrap;
  const __m512 unit = at->unit;
  const __m512i upper = _mm512_set1_epi16(0x4B00); /* of 2^23, to whose lower half integers are added by being put there */
  int adds = at->adds;
  while (table_count > 0) {
    const size_t some = table_count < kMostTables ? table_count : kMostTables;
    const __m512 offset = _mm512_set1_ps(8388608.0f + (float)(some * 128));
    KE_EACH_BLOCK(KE_DECLARE)
    for (const uint8_t *end = tables + some * kTable; tables != end; tables += kTable, data += pitch) {
      const __m512i table = _mm512_load_si512(tables);
      KE_EACH_BLOCK(KE_LOOK_UP)
    }
    int32_t place = first_place;
    KE_EACH_BLOCK(KE_ADD)
    table_count -= some;
    adds = 1;
  }
}

/* The first `count` rows of those of a segment and group; further ones of the last block may be added, too. */
static __attribute__((noinline)) void add_rows(const uint8_t *tables, size_t table_count, const uint8_t *data, const float *scales, const Rows *rows,
                     int32_t count, const Target *at) {
  const size_t all = blocks_of(rows->count), wanted = blocks_of(count);
  int32_t place = 0;
  for (size_t first = 0; first < wanted; first += kTogether) {
    const size_t left = wanted - first, together = all - first < kTogether ? all - first : kTogether;
    const size_t pitch = together * kRows;
#define KE_LEFT(count)                                                                        \
  case count:                                                                                 \
    add_blocks(tables, table_count, data, pitch, count, scales, place, at);                   \
    break
    switch (left < kTogether ? left : kTogether) {
      KE_LEFT(8);
      KE_LEFT(7);
      KE_LEFT(6);
      KE_LEFT(5);
      KE_LEFT(4);
      KE_LEFT(3);
      KE_LEFT(2);
      default:
        KE_LEFT(1);
    }
    data += table_count * pitch;
    scales += kTogether * kRows;
    place = at->wrap > 0 ? (place + kTogether * kRows) % at->wrap : place + kTogether * kRows;
  }
}

/* What the rows of 16 outputs gave, each at its place; gcc would expand from memory, which takes longer. */
static inline __m512 expand(__mmask16 mask, const float *from) {
  __m512 given;
  __asm__("vexpandps %1, %0%{%2%}%{z%}" : "=v"(given) : "v"(_mm512_loadu_ps(from)), "Yk"(mask));
  return given;
}

/* What the rows of one basis in one group gave, and which outputs have them. */
typedef struct List {
  const float *from;
  const uint16_t *masks;
} List;

enum { kLists = 4 }; /* so many at a time */

/* Adds `count` lists, a constant after inlining, to the outputs. */
static inline __attribute__((always_inline)) void spread_some(const List *lists, const int count, int32_t vectors, float *y) {
  const float *from[kLists];
#pragma GCC unroll 4
  for (int i = 0; i < count; i++) from[i] = lists[i].from;
  for (int32_t v = 0; v < vectors; v++) {
    __m512 sum = _mm512_load_ps(y + v * kLanes);
#pragma GCC unroll 4
    for (int i = 0; i < count; i++) {
      const uint16_t mask = lists[i].masks[v];
      sum = _mm512_add_ps(sum, expand(mask, from[i]));
      from[i] += __builtin_popcount(mask);
    }
    _mm512_store_ps(y + v * kLanes, sum);
  }
}

static void spread(const List *lists, int32_t count, int32_t vectors, float *y) {
  for (; count >= kLists; count -= kLists, lists += kLists) spread_some(lists, kLists, vectors, y);
  switch (count) {
    case 3:
      spread_some(lists, 3, vectors, y);
      break;
    case 2:
      spread_some(lists, 2, vectors, y);
      break;
    case 1:
      spread_some(lists, 1, vectors, y);
      break;
    default:
      break;
  }
}

static void run_segment(const KeMultiBitDensePlan *plan, const Layout *layout, int32_t segment, float *y) {
  const KePackedWeights *packed = &plan->packed;
  const size_t table_count = tables_of(packed);
  const uint8_t *memory = plan->weights, *tables = plan->sample;
  const float *units = (const float *)(const void *)(tables + (size_t)packed->groups * table_count * kTable);
  const float *scales = (const float *)(const void *)(memory + layout->scales);
  const Rows *rows = (const Rows *)(const void *)(memory + layout->rows) + (size_t)segment * (size_t)packed->groups;
  const int32_t pitch = layout->segment / kLanes;
  const size_t masks_of_group = (size_t)packed->bases * (size_t)pitch;
  const uint16_t *masks = (const uint16_t *)(const void *)(memory + layout->masks) +
                          (size_t)segment * (size_t)packed->groups * masks_of_group;
  const int32_t outputs = outputs_of(packed, segment, layout->segment), vectors = (outputs + kLanes - 1) / kLanes;
  enum { ROOM = KE_MULTI_BIT_MAX_WIDTH * kMostSegment + kRows };
  _Alignas(64) float sums[kMostSegment], found[ROOM];
  List lists[KE_MULTI_BIT_MAX_WIDTH + kLists];
  int32_t waiting = 0, used = 0; /* lists that are not yet spread, and what they take of `found` */
  memset(sums + outputs, 0, (size_t)(kMostSegment - outputs) * sizeof(float));
  memcpy(sums, plan->bias + segment * layout->segment, (size_t)outputs * sizeof(float));
  for (int32_t p = 0; p < packed->groups; p++, rows++, tables += table_count * kTable, masks += masks_of_group) {
    int32_t bases = 0, count = 0, full = 1;
    for (; bases < plan->max_bases && rows->live[bases] > 0; bases++) {
      count += rows->live[bases];
      full &= rows->live[bases] == outputs;
    }
    const int direct = full && (bases == 1 || outputs % kRows == 0);
    const int32_t size = (int32_t)blocks_of(count) * kRows;
    if (!direct && (waiting >= kLists || size > ROOM - kLanes - used)) {
      spread(lists, waiting, vectors, sums);
      waiting = used = 0;
    }
    const Target at = {direct ? sums : found + used, direct, direct ? (outputs + kRows - 1) / kRows * kRows : 0,
                       _mm512_set1_ps(units[p])};
    add_rows(tables, table_count, memory + layout->data + rows->data * kRows, scales + rows->scales, rows, count, &at);
    if (direct) continue;
    const float *from = found + used;
    for (int32_t i = 0; i < bases; from += rows->live[i++]) lists[waiting++] = (List){from, masks + i * pitch};
    used += size;
  }
  spread(lists, waiting, vectors, sums);
  const __m512 low = _mm512_set1_ps(plan->low), high = _mm512_set1_ps(plan->high);
  for (int32_t v = 0; v < vectors; v++) {
    const __m512 sum = _mm512_load_ps(sums + v * kLanes);
    const __m512 activated = _mm512_min_ps(high, _mm512_max_ps(low, sum)); /* a NaN stays one */
    _mm512_mask_storeu_ps(y + segment * layout->segment + v * kLanes, first_of(outputs - v * kLanes), activated);
  }
}

static void run(const KeMultiBitDensePlan *plan, int32_t first, int32_t end, float *y) {
  const Layout *layout = plan->weights;
  for (int32_t s = first; s < end; s++) run_segment(plan, layout, s, y);
}

const KeMultiBitDensePath ke_multi_bit_dense_avx512bitalg = {
    .isa = KE_ISA_AVX512BITALG,
    .takes_packed = 1,
    .task_macs = 4000000,
    .lanes = lanes,
    .weight_bytes = weight_bytes,
    .sample_bytes = sample_bytes,
    .pack = pack,
    .take_sample = take_sample,
    .run = run,
};
