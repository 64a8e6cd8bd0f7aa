#include <immintrin.h>

#include "internal.h"

enum { FLOATS = 8, BYTES = 16, MOST_PIXELS = 255 }; /* so many bytes add up to 16 bits */

/* The first `count` of eight numbers. */
static inline __m256i first(ptrdiff_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline __m256 load(const float *p, ptrdiff_t count) {
  return count >= FLOATS ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, first(count));
}

static inline void store(float *p, ptrdiff_t count, __m256 values) {
  if (count >= FLOATS) {
    _mm256_storeu_ps(p, values);
  } else {
    _mm256_maskstore_ps(p, first(count), values);
  }
}

static void means(const float *x, ptrdiff_t pixels, ptrdiff_t channels, float *result) {
  for (ptrdiff_t c = 0; c < channels; c += FLOATS) {
    const ptrdiff_t left = channels - c;
    const float *at = x + c;
    __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0;
    ptrdiff_t p = 0;
    for (; p + 4 <= pixels; p += 4, at += 4 * channels) {
      s0 = _mm256_add_ps(s0, load(at, left));
      s1 = _mm256_add_ps(s1, load(at + channels, left));
      s2 = _mm256_add_ps(s2, load(at + 2 * channels, left));
      s3 = _mm256_add_ps(s3, load(at + 3 * channels, left));
    }
    for (; p < pixels; p++, at += channels) s0 = _mm256_add_ps(s0, load(at, left));
    const __m256 sum = _mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3));
    store(result + c, left, _mm256_div_ps(sum, _mm256_set1_ps((float)pixels)));
  }
}

static inline __m256i load_words(const int8_t *p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)p)); }

/* Sixteen channels. */
static void means_of_bytes(const int8_t *x, ptrdiff_t pixels, ptrdiff_t channels, int32_t zero_point, float *result) {
  __m256i low = _mm256_setzero_si256(), high = low;
  for (ptrdiff_t left = pixels; left > 0; left -= MOST_PIXELS) {
    const ptrdiff_t count = left < MOST_PIXELS ? left : MOST_PIXELS;
    __m256i s0 = _mm256_setzero_si256(), s1 = s0, s2 = s0, s3 = s0;
    ptrdiff_t p = 0;
    for (; p + 4 <= count; p += 4, x += 4 * channels) {
      s0 = _mm256_add_epi16(s0, load_words(x));
      s1 = _mm256_add_epi16(s1, load_words(x + channels));
      s2 = _mm256_add_epi16(s2, load_words(x + 2 * channels));
      s3 = _mm256_add_epi16(s3, load_words(x + 3 * channels));
    }
    for (; p < count; p++, x += channels) s0 = _mm256_add_epi16(s0, load_words(x));
    const __m256i sum = _mm256_add_epi16(_mm256_add_epi16(s0, s1), _mm256_add_epi16(s2, s3));
    low = _mm256_add_epi32(low, _mm256_cvtepi16_epi32(_mm256_castsi256_si128(sum)));
    high = _mm256_add_epi32(high, _mm256_cvtepi16_epi32(_mm256_extracti128_si256(sum, 1)));
  }
  const __m256 count = _mm256_set1_ps((float)pixels), zero = _mm256_set1_ps((float)zero_point);
  _mm256_storeu_ps(result, _mm256_sub_ps(_mm256_div_ps(_mm256_cvtepi32_ps(low), count), zero));
  _mm256_storeu_ps(result + FLOATS, _mm256_sub_ps(_mm256_div_ps(_mm256_cvtepi32_ps(high), count), zero));
}

static void means_int8(const int8_t *x, ptrdiff_t pixels, ptrdiff_t channels, int32_t zero_point, float *result) {
  ptrdiff_t c = 0;
  for (; c + BYTES <= channels; c += BYTES) means_of_bytes(x + c, pixels, channels, zero_point, result + c);
  for (; c < channels; c++) {
    int64_t sum = 0;
    for (ptrdiff_t p = 0; p < pixels; p++) sum += x[p * channels + c];
    result[c] = (float)sum / (float)pixels - (float)zero_point;
  }
}

static float dot(const float *a, const float *b, ptrdiff_t count) {
  __m256 s0 = _mm256_setzero_ps(), s1 = s0;
  for (ptrdiff_t i = 0; i < count; i += 2 * FLOATS) {
    s0 = _mm256_fmadd_ps(load(a + i, count - i), load(b + i, count - i), s0);
    const ptrdiff_t next = i + FLOATS;
    if (next < count) s1 = _mm256_fmadd_ps(load(a + next, count - next), load(b + next, count - next), s1);
  }
  const __m256 sum = _mm256_add_ps(s0, s1);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

static void multiply(const float *inputs, const float *kernel, const float *bias, ptrdiff_t channels, ptrdiff_t gates,
                     float *values) {
  for (ptrdiff_t n = 0; n < gates; n++, kernel += channels) values[n] = bias[n] + dot(inputs, kernel, channels);
}

const KeGateNetPath ke_gate_net_avx2 = {KE_ISA_AVX2, means, means_int8, multiply};
