/* Copying, gathering and spreading with permutations of 16 bytes.
 *
 * Channels are cut into pieces of 16. A piece of x is compressed to what is open, widened and written over what the piece
 * before left beyond its own. Weights come straight from the caller's [output][tap][input]: the rows of 16 outputs are
 * compressed in registers, 16 open inputs at a time, and transposed in pairs of inputs, so a gathered unit is
 * [8 outputs][2 inputs]. */
#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#include "internal.h"
#include "words.h"

enum { PIECE = KE_INT8_PIECE, PIECES = KE_INT8_BLOCK / PIECE, LANES = 8, INPUTS = 2, UNIT = LANES * INPUTS, GROUP = 2 };
enum { NOTHING = 0x80 }; /* a permutation makes this 0 */

static inline int32_t pieces_of(int32_t channels) { return channels / PIECE + (channels % PIECE != 0); }

static inline KeInt8Piece *piece_at(KeInt8Block *blocks, int32_t piece) {
  return &blocks[piece / PIECES].pieces[piece % PIECES];
}

/* Starts and counts of the pieces; their indices are empty. */
static void count_pieces(KeInt8Block *blocks, int32_t pieces) {
  int32_t start = 0;
  for (int32_t i = 0; i < pieces; i++) {
    KeInt8Piece *piece = piece_at(blocks, i);
    memset(piece, NOTHING, 3 * PIECE);
    piece->start = start;
    piece->count = __builtin_popcountll(blocks[i / PIECES].mask >> (i % PIECES * PIECE) & 0xffff);
    start += piece->count;
  }
}

/* Inputs are compressed, outputs expanded; the zero point lies where an output is shut. */
static void index_pieces(KeGatedConv2DInt8Plan *plan) {
  const KeInt8Tiled *t = &plan->tiled;
  const KeInt8Open *open = &plan->open;
  const int32_t in = pieces_of(plan->shape.conv.in_channels), out = pieces_of(plan->shape.conv.out_channels);
  count_pieces(t->in, in);
  for (int32_t k = 0; k < open->in_count; k++) {
    KeInt8Piece *piece = piece_at(t->in, open->in[k] / PIECE);
    piece->index[k - piece->start] = (uint8_t)(open->in[k] % PIECE);
  }
  count_pieces(t->out, out);
  for (int32_t i = 0; i < out; i++) memset(piece_at(t->out, i)->after, plan->shape.output_zero_point, PIECE);
  for (int32_t k = 0; k < open->out_count; k++) {
    KeInt8Piece *piece = piece_at(t->out, open->out[k] / PIECE);
    piece->index[open->out[k] % PIECE] = (uint8_t)(k - piece->start);
    piece->after[open->out[k] % PIECE] = 0;
  }
}

static inline __m128i load(const void *from) { return _mm_loadu_si128((const __m128i *)from); }

/* 16 bytes, or what is left of them before `end`. */
static inline __m128i load_before(const int8_t *from, const int8_t *end) {
  if (end - from >= PIECE) return load(from);
  int8_t bytes[PIECE] = {0};
  if (end > from) memcpy(bytes, from, (size_t)(end - from));
  return load(bytes);
}

static inline __m256i compress(__m128i bytes, __m128i index, __m256i zero_point) {
  return _mm256_sub_epi16(_mm256_cvtepi8_epi16(_mm_shuffle_epi8(bytes, index)), zero_point);
}

static inline void copy_piece(const KeInt8Piece *piece, __m128i bytes, __m256i zero_point, uint8_t *to) {
  const __m256i words = compress(bytes, load(piece->index), zero_point);
  _mm256_storeu_si256((__m256i *)(void *)(to + INPUTS * piece->start), words);
}

static void copy_narrow(const KeInt8Tiled *t, const int8_t *from, ptrdiff_t stride, int64_t count, const int8_t *end,
                        __m256i zero_point, uint8_t *to) {
  const __m128i index = load(t->in->pieces[0].index);
  const ptrdiff_t column_bytes = t->column_bytes;
  for (int64_t p = 0; p < count; p++, from += stride, to += column_bytes) {
    _mm256_storeu_si256((__m256i *)(void *)to, compress(load_before(from, end), index, zero_point));
  }
}

static void copy(const KeGatedConv2DInt8Plan *plan, const int8_t *from, ptrdiff_t stride, int64_t count, uint8_t *to) {
  const KeInt8Tiled *t = &plan->tiled;
  const int32_t channels = plan->shape.conv.in_channels;
  const int32_t blocks = channels / KE_INT8_BLOCK, last_pieces = pieces_of(channels % KE_INT8_BLOCK);
  const int8_t *const end = from + (count - 1) * stride + channels;
  const ptrdiff_t column_bytes = t->column_bytes;
  const __m256i zero_point = _mm256_set1_epi16((int16_t)plan->shape.input_zero_point);
  if (channels <= PIECE) {
    copy_narrow(t, from, stride, count, end, zero_point, to);
    return;
  }
  for (int64_t p = 0; p < count; p++, from += stride, to += column_bytes) {
    const KeInt8Block *block = t->in;
    const int8_t *x = from;
    for (int32_t b = 0; b < blocks; b++, block++, x += KE_INT8_BLOCK) {
      for (int i = 0; i < PIECES; i++) copy_piece(&block->pieces[i], load(x + i * PIECE), zero_point, to);
    }
    for (int32_t i = 0; i < last_pieces; i++) {
      copy_piece(&block->pieces[i], load_before(x + i * PIECE, end), zero_point, to);
    }
  }
}

#define EACH_ROW(M) M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7)

/* 16 bytes of two rows. */
static inline __m256i load_rows(const int8_t *first, const int8_t *second, const int8_t *end, const int careful) {
  const __m128i low = careful ? load_before(first, end) : load(first);
  return _mm256_inserti128_si256(_mm256_castsi128_si256(low), careful ? load_before(second, end) : load(second), 1);
}

/* One unit of both vectors. Where there is one vector, `second` is `first`, which has the last word. */
static inline void store_unit(uint8_t *first, uint8_t *second, int32_t unit, __m256i weights) {
  _mm_store_si128((__m128i *)(void *)(second + unit * UNIT), _mm256_extracti128_si256(weights, 1));
  _mm_store_si128((__m128i *)(void *)(first + unit * UNIT), _mm256_castsi256_si128(weights));
}

/* One tap of 16 outputs. `at` is where it begins in a row of weights; only careful loads respect the end. */
static inline __attribute__((always_inline)) void gather_tap(const KeInt8Tiled *t, const int8_t *const *rows, ptrdiff_t at,
                                                             int32_t pieces, int32_t open_count, const int8_t *end,
                                                             const int careful, uint8_t *first, uint8_t *second) {
  int32_t i = 0;
  for (int32_t done = 0; done < open_count; done += PIECE, first += PIECE / INPUTS * UNIT, second += PIECE / INPUTS * UNIT) {
#define NONE(n) __m256i r##n = _mm256_setzero_si256();
    EACH_ROW(NONE)
#undef NONE
    /* The pieces that the next 16 open inputs lie in; the last of them may have more. */
    for (;; i++) {
      const KeInt8Piece *piece = piece_at(t->in, i);
      const __m256i index = _mm256_broadcastsi128_si256(load(piece->index + done - piece->start));
#define COMPRESS(n)                                                                                          \
  const __m256i x##n = load_rows(rows[n] + at + i * PIECE, rows[n + LANES] + at + i * PIECE, end, careful); \
  r##n = _mm256_or_si256(r##n, _mm256_shuffle_epi8(x##n, index));
      EACH_ROW(COMPRESS)
#undef COMPRESS
      if (i + 1 == pieces || piece->start + piece->count > done + PIECE) break;
      if (piece->start + piece->count == done + PIECE) {
        i++;
        break;
      }
    }
    const __m256i a0 = _mm256_unpacklo_epi16(r0, r1), a1 = _mm256_unpackhi_epi16(r0, r1);
    const __m256i a2 = _mm256_unpacklo_epi16(r2, r3), a3 = _mm256_unpackhi_epi16(r2, r3);
    const __m256i a4 = _mm256_unpacklo_epi16(r4, r5), a5 = _mm256_unpackhi_epi16(r4, r5);
    const __m256i a6 = _mm256_unpacklo_epi16(r6, r7), a7 = _mm256_unpackhi_epi16(r6, r7);
    const __m256i b0 = _mm256_unpacklo_epi32(a0, a2), b1 = _mm256_unpackhi_epi32(a0, a2);
    const __m256i b2 = _mm256_unpacklo_epi32(a1, a3), b3 = _mm256_unpackhi_epi32(a1, a3);
    const __m256i b4 = _mm256_unpacklo_epi32(a4, a6), b5 = _mm256_unpackhi_epi32(a4, a6);
    const __m256i b6 = _mm256_unpacklo_epi32(a5, a7), b7 = _mm256_unpackhi_epi32(a5, a7);
    const int32_t left = open_count - done;
    store_unit(first, second, 0, _mm256_unpacklo_epi64(b0, b4));
    if (left > 2) store_unit(first, second, 1, _mm256_unpackhi_epi64(b0, b4));
    if (left > 4) store_unit(first, second, 2, _mm256_unpacklo_epi64(b1, b5));
    if (left > 6) store_unit(first, second, 3, _mm256_unpackhi_epi64(b1, b5));
    if (left > 8) store_unit(first, second, 4, _mm256_unpacklo_epi64(b2, b6));
    if (left > 10) store_unit(first, second, 5, _mm256_unpackhi_epi64(b2, b6));
    if (left > 12) store_unit(first, second, 6, _mm256_unpacklo_epi64(b3, b7));
    if (left > 14) store_unit(first, second, 7, _mm256_unpackhi_epi64(b3, b7));
  }
}

static void gather(KeGatedConv2DInt8Plan *plan, int32_t vector) {
  KeInt8Tiled *t = &plan->tiled;
  const KeGatedConv2DShape *shape = &plan->shape.conv;
  const int32_t channels = shape->in_channels, taps = shape->kernel_h * shape->kernel_w, pieces = pieces_of(channels);
  const ptrdiff_t row_bytes = (ptrdiff_t)taps * channels, tap_bytes = (ptrdiff_t)t->units * UNIT;
  const int alone = vector + 1 == t->vector_count;
  const int8_t *rows[GROUP * LANES];
  for (int32_t lane = 0; lane < GROUP * LANES; lane++) {
    const int32_t k = vector * LANES + lane;
    const int32_t channel = plan->open.out[k < plan->open.out_count ? k : plan->open.out_count - 1];
    rows[lane] = plan->kernel + channel * row_bytes;
    if (lane < LANES || !alone) t->init[k] = plan->bias[channel];
  }
  const int8_t *const end = plan->kernel + shape->out_channels * row_bytes;
  const int careful = end - rows[GROUP * LANES - 1] < row_bytes - channels + (ptrdiff_t)pieces * PIECE;
  uint8_t *first = t->gathered + vector * t->vector_bytes, *second = alone ? first : first + t->vector_bytes;
  for (int32_t tap = 0; tap < taps; tap++, first += tap_bytes, second += tap_bytes) {
    const ptrdiff_t at = (ptrdiff_t)tap * channels;
    if (careful) {
      gather_tap(t, rows, at, pieces, plan->open.in_count, end, 1, first, second);
    } else {
      gather_tap(t, rows, at, pieces, plan->open.in_count, end, 0, first, second);
    }
  }
}

/* Stores as much as is left. */
static inline void store_left(int8_t *to, int64_t left, __m128i bytes) {
  int8_t last[PIECE];
  if (left >= PIECE) {
    _mm_storeu_si128((__m128i *)(void *)to, bytes);
  } else {
    _mm_storeu_si128((__m128i *)(void *)last, bytes);
    memcpy(to, last, (size_t)left);
  }
}

static inline __m128i expand(const KeInt8Piece *piece, __m128i results) {
  return _mm_or_si128(_mm_shuffle_epi8(results, load(piece->index)), load(piece->after));
}

/* One piece whose results are 8 bytes; no more than was stored together is read. */
static void spread_narrow(const KeInt8Piece *piece, const int8_t *compact, int8_t *y, int64_t pixels, int32_t channels) {
  int64_t left = pixels * channels;
  for (int64_t p = 0; p < pixels; p++, compact += LANES, y += channels, left -= channels) {
    store_left(y, left, expand(piece, _mm_loadl_epi64((const __m128i *)(const void *)compact)));
  }
}

static void spread(const KeGatedConv2DInt8Plan *plan, const int8_t *compact, ptrdiff_t pitch, int8_t *y, int64_t pixels) {
  const KeInt8Tiled *t = &plan->tiled;
  const int32_t channels = plan->shape.conv.out_channels;
  const int32_t blocks = channels / KE_INT8_BLOCK, last_pieces = pieces_of(channels % KE_INT8_BLOCK);
  if (channels <= PIECE && pitch == LANES) {
    spread_narrow(t->out->pieces, compact, y, pixels, channels);
    return;
  }
  int8_t *const end = y + pixels * channels; /* beyond that another thread may write */
  for (int64_t p = 0; p < pixels; p++, compact += pitch) {
    const KeInt8Block *block = t->out;
    int8_t *to = y + p * channels;
    for (int32_t b = 0; b < blocks; b++, block++, to += KE_INT8_BLOCK) {
      for (int i = 0; i < PIECES; i++) {
        const __m128i bytes = expand(&block->pieces[i], load(compact + block->pieces[i].start));
        _mm_storeu_si128((__m128i *)(void *)(to + i * PIECE), bytes);
      }
    }
    for (int32_t i = 0; i < last_pieces; i++, to += PIECE) {
      store_left(to, end - to, expand(&block->pieces[i], load(compact + block->pieces[i].start)));
    }
  }
}

const KeInt8Moves ke_int8_word_moves = {
    .group = GROUP, .index = index_pieces, .copy = copy, .gather = gather, .spread = spread};

#else
typedef int ke_no_words_avx2;
#endif
