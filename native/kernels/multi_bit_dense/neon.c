/* Four weights at a time by table, in fixed point. For four inputs there are 16 signed sums; a byte of each fills one register,
 * which a table look-up reads for 16 bytes at once, so that sums of 24 bits need three look-ups.
 *
 * A group's inputs are rounded to 21 bits and a sign, relative to the largest of them; from there on everything is exact until
 * a group's sum is turned into a float. A group with an input that is not finite gives NaN.
 *
 * A look-up takes two tables, for the even and the odd bytes, so that the two results that belong to one output lie side by
 * side and one instruction adds both to a sum of 16 bits. Weights are stored as [group][block of 8 outputs][basis][16
 * inputs][output], 16 bits each as in the file, and scales as [group][block][basis][output].
 *
 * Four blocks together take 79 instructions of clang's for 512 multiply-accumulates: 97 cycles in LLVM's model of a
 * Cortex-A55, 80 in that of a Cortex-A57, where as many in float would take 128 multiply-adds and 128 loads of weights.
 * Results were compared under an emulator; nothing was timed on a processor. */
#include "cpu.h"

#if defined(KE_NEON_FILES)

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "internal.h"

enum {
  kLanes = 8,
  kInputsPerWord = 16,
  kPlanes = 3,
  kWordBytes = 4 * kPlanes * 16, /* of tables: for the low nibbles of two bytes, then for the high ones */
  kWordsPerSum = 64,             /* 256 bytes fit into a sum of 16 bits */
  kLargest = (1 << 21) - 1,      /* four such inputs fit into a table's 24 bits */
};

static size_t words_per_group(const KeMultiBitDensePlan *plan) {
  return ((size_t)plan->shape.group_size + kInputsPerWord - 1) / kInputsPerWord;
}

/* Blocks times bases: what a group has of vectors of scales, and of words if multiplied with them. */
static size_t vectors_per_group(const KeMultiBitDensePlan *plan) {
  return (size_t)plan->blocks * (size_t)plan->shape.bases;
}

static size_t word_count(const KeMultiBitDensePlan *plan) {
  return (size_t)plan->shape.groups * vectors_per_group(plan) * words_per_group(plan);
}

static size_t weight_bytes(const KeMultiBitDensePlan *plan) {
  return word_count(plan) * kLanes * 2 + (size_t)plan->shape.groups * vectors_per_group(plan) * kLanes * sizeof(float);
}

static size_t table_bytes(const KeMultiBitDensePlan *plan) {
  return (size_t)plan->shape.groups * words_per_group(plan) * kWordBytes;
}

/* The tables, then for each group what one unit is worth. */
static size_t sample_bytes(const KeMultiBitDensePlan *plan) {
  return table_bytes(plan) + (size_t)plan->shape.groups * sizeof(float);
}

static const float *packed_scales(const KeMultiBitDensePlan *plan) {
  return (const float *)(const void *)((const uint8_t *)plan->weights + word_count(plan) * kLanes * 2);
}

static void pack(KeMultiBitDensePlan *plan) {
  const KeExpandedShape *shape = &plan->shape;
  const size_t words = words_per_group(plan), bases = (size_t)shape->bases, group_bytes = (size_t)shape->group_size / 8;
  uint8_t *bits = plan->weights;
  float *scales = (float *)(void *)(bits + word_count(plan) * kLanes * 2);
  memset(plan->weights, 0, weight_bytes(plan));
  for (size_t o = 0; o < (size_t)shape->outputs; o++) {
    for (size_t p = 0; p < (size_t)shape->groups; p++) {
      for (size_t i = 0; i < bases; i++) {
        const size_t from = (o * (size_t)shape->groups + p) * bases + i;
        const size_t to = (p * (size_t)plan->blocks + o / kLanes) * bases + i;
        scales[to * kLanes + o % kLanes] = plan->scales[from];
        for (size_t byte = 0; byte < group_bytes; byte++) {
          bits[((to * words + byte / 2) * kLanes + o % kLanes) * 2 + byte % 2] = plan->bits[from * group_bytes + byte];
        }
      }
    }
  }
}

/* The factor that brings the largest of `count` inputs to kLargest; 0 where one is not finite. */
static float find_factor(const float *x, int64_t count) {
  float largest = 0.0f;
  for (int64_t k = 0; k < count; k++) {
    if (!isfinite(x[k])) return 0.0f;
    largest = fabsf(x[k]) > largest ? fabsf(x[k]) : largest;
  }
  const float smallest = 0x1p-100f; /* or the factor would overflow */
  return (float)kLargest / (largest > smallest ? largest : smallest);
}

/* The 16 sums of four numbers, the first planes' bytes at `to`, those of each further plane 32 bytes on. */
static void write_table(const int32_t four[4], uint8_t *to) {
  const int32_t middle = 1 << 23, a = four[0], b = four[1], c = four[2], d = four[3];
  const int32_t first[4] = {a + b, b - a, a - b, -a - b};
  const int32x4_t sums = vaddq_s32(vld1q_s32(first), vdupq_n_s32(middle));
  uint8_t bytes[64];
  vst1q_u8(bytes, vreinterpretq_u8_s32(vaddq_s32(sums, vdupq_n_s32(c + d))));
  vst1q_u8(bytes + 16, vreinterpretq_u8_s32(vaddq_s32(sums, vdupq_n_s32(d - c))));
  vst1q_u8(bytes + 32, vreinterpretq_u8_s32(vaddq_s32(sums, vdupq_n_s32(c - d))));
  vst1q_u8(bytes + 48, vreinterpretq_u8_s32(vaddq_s32(sums, vdupq_n_s32(-c - d))));
  const uint8x16x4_t planes = vld4q_u8(bytes);
  for (int plane = 0; plane < kPlanes; plane++) vst1q_u8(to + plane * 32, planes.val[plane]);
}

static void take_sample(KeMultiBitDensePlan *plan, int32_t inputs, const float *x) {
  const int64_t per_group = plan->shape.group_size;
  const size_t words = words_per_group(plan);
  uint8_t *table = plan->sample;
  float *units = (float *)(void *)(table + table_bytes(plan));
  for (int32_t p = 0; p < plan->shape.groups; p++) {
    const float *group = x + p * per_group;
    const int64_t left = inputs - p * per_group, count = left < per_group ? left : per_group;
    const float factor = find_factor(group, count);
    units[p] = factor == 0.0f ? NAN : 1.0f / factor;
    for (size_t w = 0; w < words; w++, table += kWordBytes) {
      int32_t rounded[kInputsPerWord] = {0};
      const int64_t first = (int64_t)w * kInputsPerWord;
      for (int64_t k = 0; factor != 0.0f && k < kInputsPerWord && first + k < count; k++) {
        const float value = group[first + k] * factor;
        rounded[k] = (int32_t)(value + (value < 0.0f ? -0.5f : 0.5f));
      }
      write_table(rounded, table);
      write_table(rounded + 8, table + 16);
      write_table(rounded + 4, table + kWordBytes / 2);
      write_table(rounded + 12, table + kWordBytes / 2 + 16);
    }
  }
}

#if defined(__aarch64__)
typedef uint8x16x2_t Tables;
static inline Tables load_tables(const uint8_t *p) { return (Tables){{vld1q_u8(p), vld1q_u8(p + 16)}}; }
static inline uint8x16_t look_up(Tables tables, uint8x16_t at) { return vqtbl2q_u8(tables, at); }
#else
typedef uint8x8x4_t Tables;
static inline Tables load_tables(const uint8_t *p) {
  return (Tables){{vld1_u8(p), vld1_u8(p + 8), vld1_u8(p + 16), vld1_u8(p + 24)}};
}
static inline uint8x16_t look_up(Tables tables, uint8x16_t at) {
  return vcombine_u8(vtbl4_u8(tables, vget_low_u8(at)), vtbl4_u8(tables, vget_high_u8(at)));
}
#endif

/* Three planes of four sums to the number that they are together. */
static inline float32x4_t join(uint16x4_t low, uint16x4_t middle, int16x4_t high) {
  const int32x4_t top = vshlq_n_s32(vmovl_s16(high), 16);
  const uint32x4_t rest = vaddq_u32(vshlq_n_u32(vmovl_u16(middle), 8), vmovl_u16(low));
  return vcvtq_f32_s32(vaddq_s32(top, vreinterpretq_s32_u32(rest)));
}

/* Adds one group to `count` blocks of y; a constant after inlining, so that the sums stay in registers. */
static inline __attribute__((always_inline)) void add_group(const KeMultiBitDensePlan *plan, size_t group, size_t block,
                                                            const int count, float *y) {
  const size_t words = words_per_group(plan), bases = (size_t)plan->shape.bases;
  const uint8_t *const tables = (const uint8_t *)plan->sample + group * words * kWordBytes;
  const float unit = ((const float *)(const void *)((const uint8_t *)plan->sample + table_bytes(plan)))[group];
  const uint8x16_t low_bits = vdupq_n_u8(15), odd = vreinterpretq_u8_u16(vdupq_n_u16(16 << 8));
  const size_t first = (group * (size_t)plan->blocks + block) * bases, pitch = bases * words * kLanes * 2;
  for (size_t i = 0; i < bases; i++) {
    const uint8_t *bits = (const uint8_t *)plan->weights + (first + i) * words * kLanes * 2;
    const float *scales = packed_scales(plan) + (first + i) * kLanes;
    for (size_t begin = 0; begin < words; begin += kWordsPerSum) {
      const size_t end = words - begin < kWordsPerSum ? words : begin + kWordsPerSum;
      uint16x8_t sums[4][kPlanes];
#pragma GCC unroll 4
      for (int b = 0; b < count; b++) sums[b][0] = sums[b][1] = sums[b][2] = vdupq_n_u16(0);
      for (size_t w = begin; w < end; w++) {
        const uint8_t *table = tables + w * kWordBytes;
        uint8x16_t word[4];
#pragma GCC unroll 4
        for (int b = 0; b < count; b++) word[b] = vld1q_u8(bits + (size_t)b * pitch + w * kLanes * 2);
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
          uint8x16_t at[4];
#pragma GCC unroll 4
          for (int b = 0; b < count; b++) {
            at[b] = vorrq_u8(half == 0 ? vandq_u8(word[b], low_bits) : vshrq_n_u8(word[b], 4), odd);
          }
#pragma GCC unroll 3
          for (int plane = 0; plane < kPlanes; plane++, table += 32) {
            const Tables two = load_tables(table);
#pragma GCC unroll 4
            for (int b = 0; b < count; b++) sums[b][plane] = vpadalq_u8(sums[b][plane], look_up(two, at[b]));
          }
        }
      }
      /* Every byte of the highest plane has 128 too much. */
      const uint16x8_t excess = vdupq_n_u16((uint16_t)((end - begin) * 4 * 128));
#pragma GCC unroll 4
      for (int b = 0; b < count; b++) {
        const int16x8_t top = vreinterpretq_s16_u16(vsubq_u16(sums[b][2], excess));
        const float32x4_t left = join(vget_low_u16(sums[b][0]), vget_low_u16(sums[b][1]), vget_low_s16(top));
        const float32x4_t right = join(vget_high_u16(sums[b][0]), vget_high_u16(sums[b][1]), vget_high_s16(top));
        const float *scale = scales + (size_t)b * bases * kLanes;
        float *to = y + b * kLanes;
        vst1q_f32(to, vmlaq_f32(vld1q_f32(to), vmulq_n_f32(vld1q_f32(scale), unit), left));
        vst1q_f32(to + 4, vmlaq_f32(vld1q_f32(to + 4), vmulq_n_f32(vld1q_f32(scale + 4), unit), right));
      }
    }
  }
}

#if defined(__aarch64__)
enum { kTogether = 4 };
#else
enum { kTogether = 2 };
#endif

/* Groups go outermost, so that the tables of one stay in the first-level cache for all outputs. The last block may reach past
 * the outputs: it is summed up aside. */
static void run(const KeMultiBitDensePlan *plan, int32_t first, int32_t end, float *y) {
  const int32_t outputs = plan->shape.outputs, whole = outputs / kLanes < end ? outputs / kLanes : end;
  float last[kLanes] = {0};
  const int32_t last_first = whole * kLanes, last_count = end > whole ? outputs - last_first : 0;
  memcpy(y + (size_t)first * kLanes, plan->bias + (size_t)first * kLanes, (size_t)(whole - first) * kLanes * sizeof(float));
  memcpy(last, plan->bias + (last_count > 0 ? last_first : 0), (size_t)last_count * sizeof(float));
  for (size_t p = 0; p < (size_t)plan->shape.groups; p++) {
    int32_t block = first;
    for (; whole - block >= kTogether; block += kTogether) {
      add_group(plan, p, (size_t)block, kTogether, y + (size_t)block * kLanes);
    }
    for (; block < whole; block++) add_group(plan, p, (size_t)block, 1, y + (size_t)block * kLanes);
    if (last_count > 0) add_group(plan, p, (size_t)whole, 1, last);
  }
  memcpy(y + last_first, last, (size_t)last_count * sizeof(float));
  for (int32_t o = first * kLanes; o < last_first + last_count; o++) {
    const float value = y[o] < plan->low ? plan->low : y[o];
    y[o] = value > plan->high ? plan->high : value;
  }
}

static int32_t lanes(const KeMultiBitDensePlan *plan) {
  (void)plan;
  return kLanes;
}

const KeMultiBitDensePath ke_multi_bit_dense_neon = {
    .isa = KE_ISA_NEON,
    .lanes = lanes,
    .task_macs = 400000,
    .weight_bytes = weight_bytes,
    .sample_bytes = sample_bytes,
    .pack = pack,
    .take_sample = take_sample,
    .run = run,
};

#else
typedef int ke_no_neon;
#endif
