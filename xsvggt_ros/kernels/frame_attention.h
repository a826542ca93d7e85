// Attention of tokens in bf16 to each other: a part of native.cpp.
//
// Of keys and values integers are made once for each head, with a scale for each channel and one
// for each token, which is finer than their bf16. Processors with products of two numbers of 16
// bits take half the time for these that they take for floats.

#include "numbers.h"
#include "readers.h"

#ifdef XSVGGT_MULTIPLIES_16_BITS
constexpr float KEY_TOP = 4095, VALUE_TOP = 1023;  // of their integers

// The largest integer of one factor that so many products with those of the other one allow.
inline float factor_top(float other_top, int products) {
  return std::min(TOP, std::floor(2147483647 / (other_top * products)));
}

// Tokens of several heads, so many numbers apart.
struct BrainRows {
  const Brain *at;
  long head, token;

  void read(long h, long t, int n, float *__restrict to) const {
    const Brain *from = at + h * head + t * token;
    for (int c = 0; c < n; c++) to[c] = wide_brain(from[c]);
  }
};

// Tokens of a head as floats, each channel scaled to 1 and below.
struct ScaledRows {
  const BrainRows &from;
  long head;
  int n;
  float *spread, *inverse;  // of the channels

  void fit(int tokens, float *row) const {
    std::fill(spread, spread + n, NOTHING);
    for (int t = 0; t < tokens; t++) {
      from.read(head, t, n, row);
      for (int c = 0; c < n; c += WIDTH) {
        Vector x = load(row + c);
        store(spread + c, max(load(spread + c), max(x, -x)));
      }
    }
    for (int c = 0; c < n; c++) inverse[c] = 1 / spread[c];
  }

  // Read a token; return what its numbers are in units of, which is none if one of them is none.
  float read(int t, float top, float *row) const {
    from.read(head, t, n, row);
    Vector tops = broadcast(NOTHING), none{};
    for (int c = 0; c < n; c += WIDTH) {
      Vector x = load(row + c) * load(inverse + c);
      store(row + c, x);
      tops = max(tops, max(x, -x)), none += 0.f * x;
    }
    float largest = NOTHING, zero = sum(none);
    for (int i = 0; i < WIDTH; i++) largest = std::max(largest, tops[i]);
    return zero == 0 ? largest / top : zero;
  }
};

// The keys and values of a head as integers, as `PairReader` reads them, and their scales.
struct HeadOfFrame {
  int32_t *keys, *values;
  float *key_scale, *value_scale;
  bool has_numbers = true;  // all values

  HeadOfFrame(int tokens, int n, ScratchArena &arena) {
    keys = reinterpret_cast<int32_t *>(arena.take((tokens + ROWS) * (n / 2)));
    values = reinterpret_cast<int32_t *>(arena.take((tokens + 1) / 2 * n));
    key_scale = arena.take(tokens), value_scale = arena.take(tokens);
  }

  // row, second: room for a token each.
  void fill_keys(const ScaledRows &from, int tokens, float *row) {
    int half = from.n / 2;
    from.fit(tokens, row);
    for (int t = 0; t < tokens; t++) {
      Vector inverse = broadcast(1 / (key_scale[t] = from.read(t, KEY_TOP, row)));
      for (int c = 0; c < half; c += WIDTH)
        store(keys + t * half + c, pair(load(row + c) * inverse, load(row + half + c) * inverse));
    }
  }

  void fill_values(const ScaledRows &from, int tokens, float *row, float *second) {
    int n = from.n;
    from.fit(tokens, row);
    for (int t = 0; t < tokens; t += 2) {
      Vector low = broadcast(1 / (value_scale[t] = from.read(t, VALUE_TOP, row))), high{};
      if (t + 1 < tokens)
        high = broadcast(1 / (value_scale[t + 1] = from.read(t + 1, VALUE_TOP, second)));
      else
        std::memset(second, 0, sizeof(float) * n);
      for (int c = 0; c < n; c += WIDTH)
        store(values + t / 2 * n + c, pair(load(row + c) * low, load(second + c) * high));
    }
    for (int t = 0; t < tokens; t++) has_numbers = has_numbers && value_scale[t] == value_scale[t];
  }
};

// Attention of a head's tokens to each other; out: [tokens][heads][n].
template <bool Fused>
void attend_frame(long h, long heads, int tokens, int n, float scale, const BrainRows &queries,
                  const BrainRows &keys, const BrainRows &values, Brain *out) {
  ScratchArena arena;
  float *rows = arena.take(LANES * n), *lane_queries = arena.take(n * LANES),
        *read = arena.take(n * LANES), *scores = arena.take(BLOCK * LANES),
        *channels = arena.take(5 * n), *inverse = channels + 2 * n, *key_centre = channels + 3 * n,
        *value_centre = channels + 4 * n;
  const ScaledRows scaled_keys{keys, h, n, channels, inverse},
      scaled_values{values, h, n, channels + n, inverse};
  HeadOfFrame head(tokens, n, arena);
  head.fill_keys(scaled_keys, tokens, rows), head.fill_values(scaled_values, tokens, rows, rows + n);
  // Nothing is added to keys; what is added to values spoils them all if one of them is no number.
  std::fill(key_centre, key_centre + n, 0.f);
  std::fill(value_centre, value_centre + n, head.has_numbers ? 0.f : NAN);
  for (int from = 0; from < tokens; from += LANES) {
    ScratchArena own;
    int lanes = tokens_of_tile(tokens, from);
    for (int t = 0; t < lanes; t++) queries.read(h, from + t, n, rows + t * n);
    into_lanes(lanes, n, rows, n, lane_queries, scale * LOG2_E);
    Reader reader{lanes, n, lane_queries, read, scores, {}, {}};
    reader.begin();
    PairReader<Fused> pairs(reader, factor_top(KEY_TOP, n), factor_top(VALUE_TOP, BLOCK), own);
    pairs.turn(key_centre, scaled_keys.spread);
    for (int t = 0; t < tokens; t += BLOCK) {
      int count = std::min(tokens - t, BLOCK);
      pairs.score(count, head.keys + t * (n / 2), head.key_scale + t);
      pairs.weigh(count, head.value_scale + t);
      pairs.add(count, head.values + t / 2 * n, value_centre, scaled_values.spread);
    }
    reader.end();
    out_of_lanes(lanes, n, read, rows, n);
    for (int t = 0; t < lanes; t++) {
      Brain *to = out + ((from + t) * heads + h) * n;
      for (int c = 0; c < n; c++) to[c] = narrow_brain(rows[t * n + c]);
    }
  }
}
#endif
