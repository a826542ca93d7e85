// Queries in lanes that read tokens block by block, under one softmax: a part of native.cpp.
//
// Products are of floats, or of integers of up to 16 bits, exact, two of them in one instruction:
// those of keys and values, and of queries and weights, each with a scale of its own query and, for
// the weights, of its block.

#pragma once

#include "pairs.h"

#ifdef XSVGGT_MULTIPLIES_16_BITS
constexpr float TOP = 32767;           // of 16 bits
constexpr float LOG2_E = 1.44269504f;  // weights are powers of two here
constexpr float NOTHING = 1e-30f;      // a largest number not to divide by

// Queries in lanes that have a softmax and what they have read so far: see `attend_lanes`.
struct Reader {
  int lanes, channels;
  const float *queries;  // [channels][LANES], for weights that are powers of two
  float *read;           // [channels][LANES]
  float *scores;         // room for [BLOCK][LANES]
  Vector running_max[LANES / WIDTH], total[LANES / WIDTH];

  int vectors() const { return (lanes + WIDTH - 1) / WIDTH; }
  // Of these, the last one may be needed by half only.
  int whole_vectors() const { return HALVES ? (lanes + WIDTH / 2 - 1) / WIDTH : vectors(); }

  void begin() {
    for (int j = 0; j < LANES / WIDTH; j++) running_max[j] = broadcast(-3e38f), total[j] = Vector{};
    std::memset(read, 0, sizeof(float) * channels * LANES);
  }

  // The largest of some scores and of those before; and how what was read before fades.
  template <class V>
  V raise_max(int j, int count, V &fade) {
    V before = first<V>(running_max[j]), now = before;
    for (int k = 0; k < count; k++)
      now = larger(now, load_as<V>(scores + k * LANES + j * WIDTH));
    fade = power_of_two(before - now);
    running_max[j] = filled(now);
    return now;
  }

  void read_floats(int count, const float *keys, long key_token, const float *values,
                   long value_token) {
    product(lanes, count, channels, {keys, key_token, 1}, queries, scores);
    for (int j = 0; j < vectors(); j++) {
      Vector fade, now = raise_max(j, count, fade), sums{};
      for (int k = 0; k < count; k++) {
        float *at = scores + k * LANES + j * WIDTH;
        Vector weight = power_of_two(load(at) - now);
        sums += weight, store(at, weight);
      }
      total[j] = total[j] * fade + sums;
      for (int c = 0; c < channels; c++) {
        float *sum = read + c * LANES + j * WIDTH;
        store(sum, load(sum) * fade);
      }
    }
    product(lanes, channels, count, {values, 1, value_token, nullptr, read}, scores, read);
  }

  void end() {
    for (int j = 0; j < vectors(); j++)
      for (int c = 0; c < channels; c++) {
        float *sum = read + c * LANES + j * WIDTH;
        store(sum, load(sum) / total[j]);
      }
  }
};

// The same for tokens in integers; Fused: see `add_pairs`.
template <bool Fused>
class PairReader {
 public:
  // The largest integers that queries and weights become: sums of products stay below 2^31.
  PairReader(Reader &reader, float query_top, float weight_top, ScratchArena &arena)
      : reader_(reader), n_(reader.channels), query_top_(query_top), weight_top_(weight_top) {
    queries_ = reinterpret_cast<int32_t *>(arena.take(n_ / 2 * LANES));
    weights_ = reinterpret_cast<int32_t *>(arena.take(BLOCK / 2 * LANES));
  }

  // Put what channels of keys are scaled by and shifted into the queries, and these into integers.
  void turn(const float *centre, const float *spread) {
    for (int j = 0; j < reader_.whole_vectors(); j++) turn_vector<Vector>(j, centre, spread);
    if (reader_.whole_vectors() < reader_.vectors())
      turn_vector<HalfVector>(reader_.vectors() - 1, centre, spread);
  }

  // keys: [count][channels / 2], the two halves of the channels in one word each, with ROWS - 1 to
  // be read behind them; scale: of each.
  void score(int count, const int32_t *keys, const float *scale) {
    for (int j = 0; j < reader_.vectors(); j += COLUMNS)
      XSVGGT_COLUMNS(score_columns, reader_.lanes, j * WIDTH, count, keys, scale, j)
  }

  // Make weights of the scores, and of these, times the scales of the values, integers.
  void weigh(int count, const float *scale) {
    for (int j = 0; j < reader_.whole_vectors(); j++) weigh_vector<Vector>(count, scale, j);
    if (reader_.whole_vectors() < reader_.vectors())
      weigh_vector<HalfVector>(count, scale, reader_.vectors() - 1);
  }

  // values: [(count + 1) / 2][channels], two tokens in one word; of channels scaled and shifted.
  void add(int count, const int32_t *values, const float *centre, const float *spread) {
    for (int j = 0; j < reader_.vectors(); j += COLUMNS)
      XSVGGT_COLUMNS(add_columns, reader_.lanes, j * WIDTH, count, values, centre, spread, j)
  }

 private:
  template <class V>
  void turn_vector(int j, const float *centre, const float *spread) {
    const float *queries = reader_.queries + j * WIDTH;
    int half = n_ / 2;
    V top = V{} + NOTHING, constant{};
    for (int c = 0; c < n_; c++) {
      V query = load_as<V>(queries + c * LANES), turned = query * spread[c];
      constant += query * centre[c];
      top = larger(top, larger(turned, -turned));
    }
    V step = query_top_ / top;
    for (int c = 0; c < half; c++)
      store_as(queries_ + c * LANES + j * WIDTH,
               pair(load_as<V>(queries + c * LANES) * spread[c] * step,
                    load_as<V>(queries + (c + half) * LANES) * spread[c + half] * step));
    query_scale_[j] = filled(top / query_top_), constant_[j] = filled(constant);
  }

  template <int C, bool H>
  void score_columns(int count, const int32_t *keys, const float *scale, int j) {
    int half = n_ / 2;
    for (int t = 0; t < count; t += ROWS) {
      Integers sums[ROWS][C];  // those of rows behind the last one are of no use
      sum_pairs<Fused, ROWS, C, H>(half, keys + t * half, half, 1, queries_ + j * WIDTH, sums);
      for (int i = 0; i < ROWS && t + i < count; i++)
        for (int c = 0; c < C; c++)
          store(reader_.scores + (t + i) * LANES + (j + c) * WIDTH,
                __builtin_convertvector(sums[i][c], Vector) * (query_scale_[j + c] * scale[t + i]) +
                    constant_[j + c]);
    }
  }

  template <class V>
  void weigh_vector(int count, const float *scale, int j) {
    V fade, now = reader_.template raise_max<V>(j, count, fade), sums{}, top = V{} + NOTHING;
    for (int t = 0; t < count; t++) {
      float *at = reader_.scores + t * LANES + j * WIDTH;
      V weight = power_of_two(load_as<V>(at) - now), scaled = weight * scale[t];
      sums += weight, top = larger(top, scaled);
      store_as(at, scaled);
    }
    V step = weight_top_ / top;
    for (int t = 0; t < count; t += 2) {
      const float *at = reader_.scores + t * LANES + j * WIDTH;
      store_as(weights_ + t / 2 * LANES + j * WIDTH,
               pair(load_as<V>(at) * step, t + 1 < count ? load_as<V>(at + LANES) * step : V{}));
    }
    fade_[j] = filled(fade);
    reader_.total[j] = reader_.total[j] * fade_[j] + filled(sums);
    sums_[j] = filled(sums), weight_scale_[j] = filled(top / weight_top_);
  }

  template <int C, bool H>
  void add_columns(int count, const int32_t *values, const float *centre, const float *spread,
                   int j) {
    int c = 0;
    for (; c + ROWS <= n_; c += ROWS)
      add_channels<ROWS, C, H>(count, values + c, centre + c, spread + c, c, j);
    for (; c < n_; c++) add_channels<1, C, H>(count, values + c, centre + c, spread + c, c, j);
  }

  template <int R, int C, bool H>
  void add_channels(int count, const int32_t *values, const float *centre, const float *spread,
                    int channel, int j) {
    Integers sums[R][C];
    sum_pairs<Fused, R, C, H>((count + 1) / 2, values, 1, n_, weights_ + j * WIDTH, sums);
    for (int i = 0; i < R; i++)
      for (int c = 0; c < C; c++) {
        float *sum = reader_.read + (channel + i) * LANES + (j + c) * WIDTH;
        store(sum, load(sum) * fade_[j + c] + sums_[j + c] * centre[i] +
                       __builtin_convertvector(sums[i][c], Vector) *
                           (weight_scale_[j + c] * spread[i]));
      }
  }

  Reader &reader_;
  const int n_;
  const float query_top_, weight_top_;
  int32_t *queries_, *weights_;
  Vector query_scale_[LANES / WIDTH] = {}, constant_[LANES / WIDTH] = {},
         fade_[LANES / WIDTH] = {}, sums_[LANES / WIDTH] = {}, weight_scale_[LANES / WIDTH] = {};
};
#endif
