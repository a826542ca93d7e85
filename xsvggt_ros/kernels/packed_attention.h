// Attention over packed tokens, without making floats of them: a part of native.cpp.
//
// What a frame's channels share, their middle and half their range, goes into the queries before
// they meet its keys, and into the sum of its values after it. In between are integers: those of
// the tokens as they are stored, and queries and weights in 16 bits, each with a scale of its own
// query and, for the weights, of its block. The products are exact, two of them in one
// instruction. Queries lie in lanes, as everywhere.

#include "readers.h"

#ifdef XSVGGT_MULTIPLIES_16_BITS
constexpr int MOST_CHANNELS = 256;  // sums of 8 and 16 bits stay below 2^31

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

// Reads packed tokens, block by block; Fused: see `add_pairs`.
template <bool Fused>
class PackedReader {
 public:
  PackedReader(Reader &reader, const PackedHead &keys, const PackedHead &values,
               ScratchArena &arena)
      : reader_(reader), keys_(keys), values_(values), n_(reader.channels),
        pairs_(reader, TOP, TOP, arena) {
    float *floats = arena.take(4 * n_ + 2 * BLOCK);
    centre_[0] = floats, spread_[0] = floats + n_;
    centre_[1] = floats + 2 * n_, spread_[1] = floats + 3 * n_;
    key_scale_ = floats + 4 * n_, value_scale_ = key_scale_ + BLOCK;
    words_ = reinterpret_cast<int32_t *>(arena.take((BLOCK + ROWS) / 2 * n_));
  }

  // products: where the products of one lane go, by slots, or null.
  void read(const PackedOrder &order, const PackedOrder::Block &block, int lane,
            float *products) {
    const int *slots = order.slots.data() + block.first;
    if (block.row != row_) describe(block.row);
    for (int t = 0; t < block.count; t++) {
      read_halves(keys_, slots[t], words_ + t * (n_ / 2));
      key_scale_[t] = keys_.half_scale(slots[t]), value_scale_[t] = values_.half_scale(slots[t]);
    }
    pairs_.score(block.count, words_, key_scale_);
    if (products)
      for (int t = 0; t < block.count; t++)
        products[slots[t]] = reader_.scores[t * LANES + lane];
    pairs_.weigh(block.count, value_scale_);
    for (int t = 0; t < block.count; t += 2)
      read_two(values_, slots[t], t + 1 < block.count ? slots[t + 1] : -1, words_ + t / 2 * n_);
    pairs_.add(block.count, words_, centre_[1], spread_[1]);
  }

 private:
  void describe(int row) {
    row_ = row;
    keys_.describe(row, centre_[0], spread_[0]), values_.describe(row, centre_[1], spread_[1]);
    pairs_.turn(centre_[0], spread_[0]);
  }

  Reader &reader_;
  const PackedHead &keys_, &values_;
  const int n_;
  PairReader<Fused> pairs_;
  int row_ = -1;
  float *centre_[2], *spread_[2], *key_scale_, *value_scale_;
  int32_t *words_;
};

template <bool Fused>
void read_packed(Reader &reader, const PackedHead &keys, const PackedHead &values,
                 const PackedOrder &order, int lane, float *products, ScratchArena &arena) {
  PackedReader<Fused> packed(reader, keys, values, arena);
  for (const PackedOrder::Block &block : order.blocks) packed.read(order, block, lane, products);
}
#endif
