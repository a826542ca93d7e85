// Attention over packed tokens, without making floats of them: a part of native.cpp.
//
// What a frame's channels share, their middle and half their range, goes into the queries before
// they meet its keys, and into the sum of its values after it. In between are integers: those of
// the tokens as they are stored, and queries and weights in 16 bits, each with a scale of its own
// query and, for the weights, of its block. The products are exact, two of them in one
// instruction. Queries lie in lanes, as everywhere.

#if defined(__AVX2__)
#define XSVGGT_MULTIPLIES_16_BITS 1

typedef Integers LooseIntegers __attribute__((aligned(4), may_alias));
typedef int16_t Shorts __attribute__((vector_size(WIDTH * 4)));

inline Integers load(const int32_t *from) {
  return *reinterpret_cast<const LooseIntegers *>(from);
}
inline void store(int32_t *to, Integers x) { *reinterpret_cast<LooseIntegers *>(to) = x; }

// Whether the processor adds products of two numbers of 16 bits in one instruction. These libraries
// are not compiled for it, but many processors have it.
inline bool adds_products() {
#if defined(__AVX512BW__) && defined(__GNUC__) && !defined(__clang__)
  return __builtin_cpu_supports("avx512vnni");
#else
  return false;
#endif
}

inline void add_products(Integers &sum, Integers a, Integers b) {
#if defined(__AVX512BW__) && defined(__GNUC__) && !defined(__clang__)
  asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
#else
  (void)sum, (void)a, (void)b;
#endif
}

// Add the products of two numbers of 16 bits each; Fused: see `adds_products`.
template <bool Fused>
inline void add_pairs(Integers &sum, Integers a, Integers b) {
#if defined(__AVX512BW__)
  if (Fused) return add_products(sum, a, b);
  sum += reinterpret_cast<Integers>(
      _mm512_madd_epi16(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
#else
  sum += reinterpret_cast<Integers>(
      _mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#endif
}


// Numbers below 2^15 in size, rounded, two in 32 bits.
inline Integers pair(Vector low, Vector high) {
  Integers a = reinterpret_cast<Integers>(low + 12582912.f),
           b = reinterpret_cast<Integers>(high + 12582912.f);
  return (a & 0xffff) | (b << 16);
}

inline int32_t word(int low, int high) { return int32_t(uint32_t(high) << 16) | (low & 0xffff); }

// 2^x for x <= 0, or next to nothing; Cephes' exp2f: relative error 2e-7.
inline Vector power_of_two(Vector x) {
  x = max(x, broadcast(-126.f));
  Vector shifted = x + 12582912.f;  // rounds to the nearest integer, which is its low bits
  x = x - (shifted - 12582912.f);
  Vector y = polynomial(x, {1.535336188319500e-4f, 1.339887440266574e-3f, 9.618437357674640e-3f,
                            5.550332471162809e-2f, 2.402264791363012e-1f, 6.931472028550421e-1f,
                            1.f});
  Integers power = reinterpret_cast<Integers>(shifted) << 23;
  return reinterpret_cast<Vector>(reinterpret_cast<Integers>(y) + power);
}

constexpr float TOP = 32767;            // of 16 bits
constexpr float LOG2_E = 1.44269504f;   // weights are powers of two here
constexpr int MOST_CHANNELS = 256;      // sums of 8 and 16 bits stay below 2^31
constexpr float NOTHING = 1e-30f;       // a largest number not to divide by

// sums[i][c] = over k of left[i * row + k * step] times right[k][c], for R rows and C vectors.
template <bool Fused, int R, int C>
inline __attribute__((always_inline)) void sum_pairs(int n, const int32_t *left, long row,
                                                     long step, const int32_t *right,
                                                     Integers (&sums)[R][C]) {
  Integers own[R][C] = {};  // in registers
  for (int k = 0; k < n; k++) {
    Integers some[C];
    for (int c = 0; c < C; c++) some[c] = load(right + k * LANES + c * WIDTH);
    for (int i = 0; i < R; i++) {
      Integers factor = left[i * row + k * step] - Integers{};
      for (int c = 0; c < C; c++) add_pairs<Fused>(own[i][c], factor, some[c]);
    }
  }
  for (int i = 0; i < R; i++)
    for (int c = 0; c < C; c++) sums[i][c] = own[i][c];
}

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

  void begin() {
    for (int j = 0; j < LANES / WIDTH; j++) running_max[j] = broadcast(-3e38f), total[j] = Vector{};
    std::memset(read, 0, sizeof(float) * channels * LANES);
  }

  // The largest of some scores and of those before; and how what was read before fades.
  Vector raise_max(int j, int count, Vector &fade) {
    Vector now = running_max[j];
    for (int k = 0; k < count; k++) now = max(now, load(scores + k * LANES + j * WIDTH));
    fade = power_of_two(running_max[j] - now);
    running_max[j] = now;
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
    const float *centre = centre_[0], *spread = spread_[0];
    int half = n_ / 2;
    for (int j = 0; j < reader_.vectors(); j++) {
      const float *queries = reader_.queries + j * WIDTH;
      Vector top = broadcast(NOTHING), constant{};
      for (int c = 0; c < n_; c++) {
        Vector query = load(queries + c * LANES), turned = query * spread[c];
        constant += query * centre[c];
        top = max(top, max(turned, -turned));
      }
      Vector step = TOP / top;
      for (int c = 0; c < half; c++)
        store(queries_ + c * LANES + j * WIDTH,
              pair(load(queries + c * LANES) * spread[c] * step,
                   load(queries + (c + half) * LANES) * spread[c + half] * step));
      query_scale_[j] = top / TOP, constant_[j] = constant;
    }
  }

  void score(int count, const int *slots) {
    int half = n_ / 2;
    for (int t = 0; t < count; t++) {
      read_halves(keys_, slots[t], words_ + t * half);
      key_scale_[t] = keys_.half_scale(slots[t]), value_scale_[t] = values_.half_scale(slots[t]);
    }
    // The same as in `add`: handed to one loop as a function, a frame takes a third longer.
    constexpr int THREE = std::min(3, COLUMNS);
    for (int j = 0; j < reader_.vectors(); j += COLUMNS)
      switch (reader_.vectors() - j) {
        case 1: score_columns<1>(count, j); break;
        case 2: score_columns<2>(count, j); break;
        case 3: score_columns<THREE>(count, j); break;
        default: score_columns<COLUMNS>(count, j);
      }
  }

  template <int C>
  void score_columns(int count, int j) {
    int half = n_ / 2;
    for (int t = 0; t < count; t += ROWS) {
      Integers sums[ROWS][C];  // those of rows behind the last one are of no use
      sum_pairs<Fused>(half, words_ + t * half, half, 1, queries_ + j * WIDTH, sums);
      for (int i = 0; i < ROWS && t + i < count; i++)
        for (int c = 0; c < C; c++)
          store(reader_.scores + (t + i) * LANES + (j + c) * WIDTH,
                __builtin_convertvector(sums[i][c], Vector) *
                        (query_scale_[j + c] * key_scale_[t + i]) + constant_[j + c]);
    }
  }

  // Make weights of the scores, and of these, times the scales of the values, 16 bits.
  void weigh(int count) {
    for (int j = 0; j < reader_.vectors(); j++) {
      Vector now = reader_.raise_max(j, count, fade_[j]), sums{}, top = broadcast(NOTHING);
      for (int t = 0; t < count; t++) {
        float *at = reader_.scores + t * LANES + j * WIDTH;
        Vector weight = power_of_two(load(at) - now), scaled = weight * value_scale_[t];
        sums += weight, top = max(top, scaled);
        store(at, scaled);
      }
      Vector step = TOP / top;
      for (int t = 0; t < count; t += 2) {
        const float *at = reader_.scores + t * LANES + j * WIDTH;
        store(weights_ + t / 2 * LANES + j * WIDTH,
              pair(load(at) * step, t + 1 < count ? load(at + LANES) * step : Vector{}));
      }
      reader_.total[j] = reader_.total[j] * fade_[j] + sums;
      sums_[j] = sums, weight_scale_[j] = top / TOP;
    }
  }

  void add(int count, const int *slots) {
    for (int t = 0; t < count; t += 2)
      read_two(values_, slots[t], t + 1 < count ? slots[t + 1] : -1, words_ + t / 2 * n_);
    constexpr int THREE = std::min(3, COLUMNS);
    for (int j = 0; j < reader_.vectors(); j += COLUMNS)
      switch (reader_.vectors() - j) {
        case 1: add_columns<1>(count, j); break;
        case 2: add_columns<2>(count, j); break;
        case 3: add_columns<THREE>(count, j); break;
        default: add_columns<COLUMNS>(count, j);
      }
  }

  template <int C>
  void add_columns(int count, int j) {
    int channel = 0;
    for (; channel + ROWS <= n_; channel += ROWS) add_channels<ROWS, C>(count, channel, j);
    for (; channel < n_; channel++) add_channels<1, C>(count, channel, j);
  }

  template <int R, int C>
  void add_channels(int count, int channel, int j) {
    const float *centre = centre_[1] + channel, *spread = spread_[1] + channel;
    Integers sums[R][C];
    sum_pairs<Fused>((count + 1) / 2, words_ + channel, 1, n_, weights_ + j * WIDTH, sums);
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
