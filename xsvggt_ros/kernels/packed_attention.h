// Attention over packed tokens, without making floats of them: a part of native.cpp.
//
// What a frame's channels share, their middle and half their range, goes into the queries before
// they meet its keys, and into the sum of its values after it. In between are integers: those of
// the tokens as they are stored, and queries and weights in 16 bits, each with a scale of its own
// query and, for the weights, of its block. The products are exact, two of them in one
// instruction. Queries lie in lanes, as everywhere.

#include "pairs.h"

#ifdef XSVGGT_MULTIPLIES_16_BITS
constexpr float TOP = 32767;            // of 16 bits
constexpr float LOG2_E = 1.44269504f;   // weights are powers of two here
constexpr int MOST_CHANNELS = 256;      // sums of 8 and 16 bits stay below 2^31
constexpr float NOTHING = 1e-30f;       // a largest number not to divide by

// Where the tokens of a layer lie, in the order of their rows of the table; without a step's own.
struct PackedOrder {
  struct Block {
    int row, first, count;
  };
  std::vector<int> slots;
  std::vector<Block> blocks;

  PackedOrder(const int32_t *rows, int table_rows, int count, const int64_t *own, int own_count) {
    std::vector<int> starts(table_rows + 1);
    std::vector<char> is_own(count);
    for (int i = 0; i < own_count; i++) is_own[own[i]] = 1;
    for (int t = 0; t < count; t++) starts[rows[t] + 1] += !is_own[t];
    for (int row = 0; row < table_rows; row++) {
      int left = starts[row + 1], first = starts[row];
      starts[row + 1] += first;
      for (int parts = (left + BLOCK - 1) / BLOCK; left > 0; parts--) {
        int some = (left + parts - 1) / parts;
        blocks.push_back({row, first, some});
        first += some, left -= some;
      }
    }
    slots.resize(starts[table_rows]);
    for (int t = 0; t < count; t++)
      if (!is_own[t]) slots[starts[rows[t]]++] = t;
  }
};

// One of keys and values of a head.
struct PackedHead {
  const uint8_t *payload;
  const Half *scale, *statistics;  // of a row: centres and spreads, `table_row` apart
  int channels, bits;

  const uint8_t *token(int slot) const { return payload + long(slot) * (channels * bits / 8); }
  float half_scale(int slot) const { return 0.5f * wide(scale[slot]); }
  void describe(int row, float *centre, float *spread) const {
    const Half *own = statistics + long(row) * 4 * channels;
    widen(channels, own, centre), widen(channels, own + channels, spread);
  }
};

inline Integers load(const uint8_t *from) {
#if defined(__AVX512BW__)
  return reinterpret_cast<Integers>(
      _mm512_maskz_cvtepu8_epi32(-1, _mm_loadu_si128(reinterpret_cast<const __m128i *>(from))));
#else
  return reinterpret_cast<Integers>(
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(from))));
#endif
}

// Stored integers, two in each word, about zero: twice as large.
inline Integers centre_pair(Integers low, Integers high, int most) {
  Shorts both = reinterpret_cast<Shorts>(low | (high << 16));
  return reinterpret_cast<Integers>(Shorts(both + both - int16_t(most)));
}

// A token's integers; the two halves of its channels lie in one word each.
inline void read_halves(const PackedHead &head, int slot, int32_t *words) {
  const uint8_t *from = head.token(slot);
  int half = head.channels / 2, c = 0, most = (1 << head.bits) - 1;
  for (; c + WIDTH <= half; c += WIDTH) {
    Integers low = load(from + c), high = head.bits == 4 ? low >> 4 : load(from + half + c);
    store(words + c, centre_pair(head.bits == 4 ? low & 15 : low, high, most));
  }
  for (; c < half; c++) {
    int low = head.bits == 4 ? from[c] & 15 : from[c],
        high = head.bits == 4 ? from[c] >> 4 : from[c + half];
    words[c] = word(2 * low - most, 2 * high - most);
  }
}

// The integers of two tokens, a channel in each word; of one, if the second is below zero.
inline void read_two(const PackedHead &head, int slot, int second, int32_t *words) {
  const uint8_t *one = head.token(slot), *two = head.token(second < 0 ? slot : second);
  int half = head.channels / 2, c = 0, most = (1 << head.bits) - 1;
  int keep = second < 0 ? 0xffff : -1;
  if (head.bits == 4) {
    for (; c + WIDTH <= half; c += WIDTH) {
      Integers a = load(one + c), b = load(two + c);
      store(words + c, centre_pair(a & 15, b & 15, most) & keep);
      store(words + half + c, centre_pair(a >> 4, b >> 4, most) & keep);
    }
    for (; c < half; c++) {
      words[c] = word(2 * (one[c] & 15) - most, 2 * (two[c] & 15) - most) & keep;
      words[c + half] = word(2 * (one[c] >> 4) - most, 2 * (two[c] >> 4) - most) & keep;
    }
  } else {
    for (; c + WIDTH <= 2 * half; c += WIDTH)
      store(words + c, centre_pair(load(one + c), load(two + c), most) & keep);
    for (; c < 2 * half; c++) words[c] = word(2 * one[c] - most, 2 * two[c] - most) & keep;
  }
}

inline float dot(int n, const float *a, const float *b) {
  float total = 0;
  for (int c = 0; c < n; c++) total += a[c] * b[c];
  return total;
}

// total[t] = (total[t], if `add`) + the softmax of x, powers of two, which is overwritten.
void add_softmax(int count, float *x, float *total, bool add) {
  Vector tops = broadcast(-3e38f), sums{};
  int whole = count / WIDTH * WIDTH;
  for (int t = 0; t < whole; t += WIDTH) tops = max(tops, load(x + t));
  float top = -3e38f;
  for (int i = 0; i < WIDTH; i++) top = std::fmax(top, tops[i]);
  for (int t = whole; t < count; t++) top = std::fmax(top, x[t]);
  for (int t = 0; t < whole; t += WIDTH) {
    Vector weight = power_of_two(load(x + t) - top);
    sums += weight, store(x + t, weight);
  }
  float sum_of_all = sum(sums);
  for (int t = whole; t < count; t++)
    sum_of_all += x[t] = power_of_two(broadcast(x[t] - top))[0];
  for (int t = 0; t < count; t++) total[t] = (add ? total[t] : 0) + x[t] / sum_of_all;
}

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

// The same for packed tokens, block by block; Fused: see `add_pairs`.
template <bool Fused>
class PackedReader {
 public:
  PackedReader(Reader &reader, const PackedHead &keys, const PackedHead &values,
               ScratchArena &arena)
      : reader_(reader), keys_(keys), values_(values), n_(reader.channels) {
    float *floats = arena.take(4 * n_ + 2 * BLOCK);
    centre_[0] = floats, spread_[0] = floats + n_;
    centre_[1] = floats + 2 * n_, spread_[1] = floats + 3 * n_;
    key_scale_ = floats + 4 * n_, value_scale_ = key_scale_ + BLOCK;
    words_ = reinterpret_cast<int32_t *>(arena.take((BLOCK + ROWS) / 2 * n_));
    queries_ = reinterpret_cast<int32_t *>(arena.take(n_ / 2 * LANES));
    weights_ = reinterpret_cast<int32_t *>(arena.take(BLOCK / 2 * LANES));
  }

  // products: where the products of one lane go, by slots, or null.
  void read(const PackedOrder &order, const PackedOrder::Block &block, int lane,
            float *products) {
    const int *slots = order.slots.data() + block.first;
    if (block.row != row_) describe(block.row);
    score(block.count, slots);
    if (products)
      for (int t = 0; t < block.count; t++)
        products[slots[t]] = reader_.scores[t * LANES + lane];
    weigh(block.count);
    add(block.count, slots);
  }

 private:
  // Put a row's statistics into the queries, and these into 16 bits.
  void describe(int row) {
    row_ = row;
    keys_.describe(row, centre_[0], spread_[0]), values_.describe(row, centre_[1], spread_[1]);
    for (int j = 0; j < reader_.whole_vectors(); j++) turn<Vector>(j);
    if (reader_.whole_vectors() < reader_.vectors()) turn<HalfVector>(reader_.vectors() - 1);
  }

  template <class V>
  void turn(int j) {
    const float *centre = centre_[0], *spread = spread_[0];
    const float *queries = reader_.queries + j * WIDTH;
    int half = n_ / 2;
    V top = V{} + NOTHING, constant{};
    for (int c = 0; c < n_; c++) {
      V query = load_as<V>(queries + c * LANES), turned = query * spread[c];
      constant += query * centre[c];
      top = larger(top, larger(turned, -turned));
    }
    V step = TOP / top;
    for (int c = 0; c < half; c++)
      store_as(queries_ + c * LANES + j * WIDTH,
               pair(load_as<V>(queries + c * LANES) * spread[c] * step,
                    load_as<V>(queries + (c + half) * LANES) * spread[c + half] * step));
    query_scale_[j] = filled(top / TOP), constant_[j] = filled(constant);
  }

  void score(int count, const int *slots) {
    int half = n_ / 2;
    for (int t = 0; t < count; t++) {
      read_halves(keys_, slots[t], words_ + t * half);
      key_scale_[t] = keys_.half_scale(slots[t]), value_scale_[t] = values_.half_scale(slots[t]);
    }
    for (int j = 0; j < reader_.vectors(); j += COLUMNS)
      XSVGGT_COLUMNS(score_columns, reader_.lanes, j * WIDTH, count, j)
  }

  template <int C, bool H>
  void score_columns(int count, int j) {
    int half = n_ / 2;
    for (int t = 0; t < count; t += ROWS) {
      Integers sums[ROWS][C];  // those of rows behind the last one are of no use
      sum_pairs<Fused, ROWS, C, H>(half, words_ + t * half, half, 1, queries_ + j * WIDTH, sums);
      for (int i = 0; i < ROWS && t + i < count; i++)
        for (int c = 0; c < C; c++)
          store(reader_.scores + (t + i) * LANES + (j + c) * WIDTH,
                __builtin_convertvector(sums[i][c], Vector) *
                        (query_scale_[j + c] * key_scale_[t + i]) + constant_[j + c]);
    }
  }

  // Make weights of the scores, and of these, times the scales of the values, 16 bits.
  void weigh(int count) {
    for (int j = 0; j < reader_.whole_vectors(); j++) weigh_vector<Vector>(count, j);
    if (reader_.whole_vectors() < reader_.vectors())
      weigh_vector<HalfVector>(count, reader_.vectors() - 1);
  }

  template <class V>
  void weigh_vector(int count, int j) {
    V fade, now = reader_.template raise_max<V>(j, count, fade), sums{}, top = V{} + NOTHING;
    for (int t = 0; t < count; t++) {
      float *at = reader_.scores + t * LANES + j * WIDTH;
      V weight = power_of_two(load_as<V>(at) - now), scaled = weight * value_scale_[t];
      sums += weight, top = larger(top, scaled);
      store_as(at, scaled);
    }
    V step = TOP / top;
    for (int t = 0; t < count; t += 2) {
      const float *at = reader_.scores + t * LANES + j * WIDTH;
      store_as(weights_ + t / 2 * LANES + j * WIDTH,
               pair(load_as<V>(at) * step, t + 1 < count ? load_as<V>(at + LANES) * step : V{}));
    }
    fade_[j] = filled(fade);
    reader_.total[j] = reader_.total[j] * fade_[j] + filled(sums);
    sums_[j] = filled(sums), weight_scale_[j] = filled(top / TOP);
  }

  void add(int count, const int *slots) {
    for (int t = 0; t < count; t += 2)
      read_two(values_, slots[t], t + 1 < count ? slots[t + 1] : -1, words_ + t / 2 * n_);
    for (int j = 0; j < reader_.vectors(); j += COLUMNS)
      XSVGGT_COLUMNS(add_columns, reader_.lanes, j * WIDTH, count, j)
  }

  template <int C, bool H>
  void add_columns(int count, int j) {
    int channel = 0;
    for (; channel + ROWS <= n_; channel += ROWS) add_channels<ROWS, C, H>(count, channel, j);
    for (; channel < n_; channel++) add_channels<1, C, H>(count, channel, j);
  }

  template <int R, int C, bool H>
  void add_channels(int count, int channel, int j) {
    const float *centre = centre_[1] + channel, *spread = spread_[1] + channel;
    Integers sums[R][C];
    sum_pairs<Fused, R, C, H>((count + 1) / 2, words_ + channel, 1, n_, weights_ + j * WIDTH, sums);
    for (int i = 0; i < R; i++)
      for (int c = 0; c < C; c++) {
        float *sum = reader_.read + (channel + i) * LANES + (j + c) * WIDTH;
        store(sum, load(sum) * fade_[j + c] + sums_[j + c] * centre[i] +
                       __builtin_convertvector(sums[i][c], Vector) *
                           (weight_scale_[j + c] * spread[i]));
      }
  }

  Reader &reader_;
  const PackedHead &keys_, &values_;
  const int n_;
  int row_ = -1;
  float *centre_[2], *spread_[2], *key_scale_, *value_scale_;
  int32_t *words_, *queries_, *weights_;
  Vector query_scale_[LANES / WIDTH] = {}, constant_[LANES / WIDTH] = {},
         fade_[LANES / WIDTH] = {}, sums_[LANES / WIDTH] = {}, weight_scale_[LANES / WIDTH] = {};
};

template <bool Fused>
void read_packed(Reader &reader, const PackedHead &keys, const PackedHead &values,
                 const PackedOrder &order, int lane, float *products, ScratchArena &arena) {
  PackedReader<Fused> packed(reader, keys, values, arena);
  for (const PackedOrder::Block &block : order.blocks) packed.read(order, block, lane, products);
}
#endif
