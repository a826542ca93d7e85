// What a small network asks of one core of a CPU: few tokens through narrow layers, and attention
// over a cache. A frame of such a network is hundreds of operators of a few microseconds each, and
// half of its time went into calling them; here what lies between two attentions is one call.
//
// Tokens lie in lanes: 64 tokens are the columns of every matrix, so that products, norms,
// positions and the softmax are all the same arithmetic on whole vectors, and no weight has to be
// repacked. A single token goes through the rows of the weights instead.
//
// fp32, row-major; sums are taken in another order than PyTorch's. No headers but the standard
// library's: `native.py` loads this with ctypes. Nothing is checked here.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>
#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int WIDTH = 16, COLUMNS = 4;  // floats of a vector; vectors that a row of a tile has
#elif defined(__AVX2__)
constexpr int WIDTH = 8, COLUMNS = 2;
#else
constexpr int WIDTH = 4, COLUMNS = 4;
#endif
constexpr int ROWS = 4;     // of a tile: ROWS * COLUMNS sums are in registers
constexpr int LANES = 64;   // tokens side by side
constexpr int BLOCK = 128;  // keys at a time
constexpr int AHEAD = 2048;  // floats, of a matrix that goes by
constexpr long SHARED_WEIGHTS = 1 << 14;  // a product of fewer is not worth sharing

typedef float Vector __attribute__((vector_size(WIDTH * 4)));
typedef int32_t Integers __attribute__((vector_size(WIDTH * 4)));
typedef Vector Loose __attribute__((aligned(4), may_alias));

inline Vector load(const float *from) { return *reinterpret_cast<const Loose *>(from); }
inline void store(float *to, Vector x) { *reinterpret_cast<Loose *>(to) = x; }
inline Vector broadcast(float x) { return x - Vector{}; }
inline Vector max(Vector a, Vector b) { return a < b ? b : a; }  // a, if that is no number

// Have memory fetched that is read soon: the processor by itself does not look beyond a page.
inline void fetch(const float *from, long floats) {
  for (long i = 0; i < floats; i += 16) __builtin_prefetch(from + i);
}

// Half a vector is worth telling apart where a whole one takes twice as long: 53 tokens are 7.
#if defined(__AVX512F__)
constexpr bool HALVES = true;
typedef float HalfVector __attribute__((vector_size(WIDTH * 2)));
#else
constexpr bool HALVES = false;
typedef Vector HalfVector;
#endif

inline HalfVector half(Vector x) {
  HalfVector out;
  std::memcpy(&out, &x, sizeof out);
  return out;
}

inline Vector whole(HalfVector x) {  // zeros behind it
  Vector out{};
  std::memcpy(&out, &x, sizeof x);
  return out;
}

inline float sum(Vector x) {
  float total = 0;
  for (int i = 0; i < WIDTH; i++) total += x[i];
  return total;
}

inline Vector sqrt_lanes(Vector x) {
  for (int i = 0; i < WIDTH; i++) x[i] = std::sqrt(x[i]);
  return x;
}

// The highest power's coefficient first.
template <class V, int N>
inline __attribute__((always_inline)) V polynomial(V x, const float (&coefficients)[N]) {
  V y = V{} + coefficients[0];
#pragma GCC unroll 16
  for (int i = 1; i < N; i++) y = y * x + coefficients[i];
  return y;
}

// Cephes' expf, for x <= 88: relative error 1e-7.
inline Vector exponential(Vector x) {
  x = max(x, broadcast(-87.3f));
  Vector whole = x * 1.44269504f + 12582912.f - 12582912.f;  // rounds to the nearest integer
  x = x - whole * 0.693359375f;
  x = x + whole * 2.12194440e-4f;
  Vector y = polynomial(x, {1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f,
                            4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f});
  y = y * x * x + x + 1.f;
  Integers power = __builtin_convertvector(whole, Integers) << 23;
  return reinterpret_cast<Vector>(reinterpret_cast<Integers>(y) + power);
}

// x / 2 (1 + erf(x / sqrt 2)), erf by Abramowitz and Stegun 7.1.26: absolute error 1.5e-7.
inline Vector gelu(Vector x) {
  Vector z = max(x, -x) * 0.70710678f;
  Vector t = 1.f / (1.f + 0.3275911f * z);
  Vector y = polynomial(t, {1.061405429f, -1.453152027f, 1.421413741f, -0.284496736f,
                            0.254829592f});
  y = 1.f - y * t * exponential(-z * z);
  return 0.5f * x * (1.f + (x < 0 ? -y : y));
}

// Memory for as long as the object lives, kept for the next ones of the same thread. What is taken
// beyond what there is lies beside it, and is part of it from the next call on.
class ScratchArena {
 public:
  ScratchArena() : kept_(kept()), begin_(kept_.used) { kept_.arenas++; }
  ~ScratchArena() {
    kept_.used = begin_;
    if (--kept_.arenas || kept_.beside.empty()) return;
    kept_.beside.clear();
    kept_.block.reset(new float[kept_.size = kept_.wanted]);
  }
  ScratchArena(const ScratchArena &) = delete;

  // Not filled.
  float *take(size_t floats) {
    float *begin = kept_.block.get() + kept_.used;
    kept_.used += floats;
    if (kept_.used <= kept_.size) return begin;
    kept_.wanted = std::max(kept_.wanted, kept_.used);
    kept_.beside.emplace_back(new float[floats]);
    return kept_.beside.back().get();
  }

 private:
  struct Kept {
    std::unique_ptr<float[]> block;
    size_t size = 0, used = 0, wanted = 0;  // floats
    int arenas = 0;
    std::vector<std::unique_ptr<float[]>> beside;
  };
  static Kept &kept() {
    static thread_local Kept kept;
    return kept;
  }
  Kept &kept_;
  size_t begin_;
};

// Starts a team of threads: GOMP_parallel of the OpenMP runtime that PyTorch runs on. Threads of
// our own, or of a second runtime, would look out for work on the cores that PyTorch's look out on.
void (*thread_team)(void (*)(void *), void *, unsigned, unsigned) = nullptr;

// work(i) for each i in [0, count), by so many threads.
template <class Work>
void share(long threads, int count, const Work &work) {
  struct Shared {
    const Work &work;
    int count;
    std::atomic<int> next;
  } shared{work, count, {0}};
  auto take_part = [](void *data) {
    Shared &own = *static_cast<Shared *>(data);
    for (int i; (i = own.next++) < own.count;) own.work(i);
  };
  if (threads < 2 || count < 2 || !thread_team)
    take_part(&shared);
  else
    thread_team(take_part, &shared, unsigned(threads), 0);
}

// work(first, last) for parts of [0, count), a whole number of `unit` each but the last.
template <class Work>
void share_range(long threads, long count, long unit, const Work &work) {
  if (threads < 2 || count < 2 * unit) return work(0, count);
  long units = count / unit, parts = std::min(2 * threads, units);
  long part = (units + parts - 1) / parts * unit;
  share(threads, int((count + part - 1) / part), [&](int i) {
    work(i * part, std::min(count, (i + 1) * part));
  });
}

// Packed tokens -----------------------------------------------------------------------------------

typedef uint16_t Half;  // a number in 16 bits

#if defined(__F16C__)
inline float wide(Half x) { return _cvtsh_ss(x); }
inline Half narrow(float x) { return _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT); }
#elif defined(__aarch64__)
inline float wide(Half x) {
  __fp16 half;
  std::memcpy(&half, &x, sizeof half);
  return half;
}
inline Half narrow(float x) {
  __fp16 half = x;
  Half bits;
  std::memcpy(&bits, &half, sizeof bits);
  return bits;
}
#else
#error "no 16-bit floats are known for this processor"
#endif

void widen(int n, const Half *__restrict from, float *__restrict to) {
  int i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(to + i,
                     _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from + i))));
#endif
  for (; i < n; i++) to[i] = wide(from[i]);
}

constexpr float SMALLEST = 6.103515625e-5f;  // of 16 bits, normal

// The middle of each channel's range over tokens x[t * row], and half of it, in 16 bits: as
// `packing.frame_statistics` has them. work: room for 3 n floats.
void frame_statistics(int n, long tokens, const float *x, long row, float *work, Half *centre,
                      Half *spread) {
  float *__restrict low = work, *__restrict high = work + n, *__restrict zero = work + 2 * n;
  std::copy(x, x + n, low), std::copy(x, x + n, high), std::fill(zero, zero + n, 0.f);
  for (long t = 0; t < tokens; t++) {
    const float *__restrict some = x + t * row;
    for (int c = 0; c < n; c++) {
      low[c] = std::min(low[c], some[c]), high[c] = std::max(high[c], some[c]);
      zero[c] += 0 * some[c];  // no number, if there is one that is none
    }
  }
  for (int c = 0; c < n; c++) {
    float middle = (low[c] + high[c]) * 0.5f;
    centre[c] = narrow(zero[c] == 0 ? middle : zero[c]);
    float rounded = wide(centre[c]);
    spread[c] = narrow(std::max(SMALLEST, std::max(high[c] - rounded, rounded - low[c])));
    if (zero[c] != 0) spread[c] = centre[c];
  }
}

// Half to even; the least, if it is no number.
inline int whole(float x, float least, float most) {
  return int(std::min(std::max(least, x + 12582912.f - 12582912.f), most));
}

// x [n] into integers about the middle, and its scale: as `packing.quantise_symmetric_` has them.
void write_token(int n, int bits, const float *__restrict x, uint8_t *__restrict payload,
                 Half *scale) {
  float middle = float((1 << bits) - 1) / 2, top = 0;
  Vector tops{};
  int at = 0;
  for (; at + WIDTH <= n; at += WIDTH) {
    Vector some = load(x + at);
    tops = max(tops, max(some, -some));
  }
  for (; at < n; at++) top = std::max(top, std::fabs(x[at]));
  for (int i = 0; i < WIDTH; i++) top = std::max(top, tops[i]);
  *scale = narrow(std::max(SMALLEST, top / middle));
  float step = wide(*scale), levels = 2 * middle;
  if (bits == 8) {
    for (int c = 0; c < n; c++) payload[c] = uint8_t(whole(x[c] / step + middle, 0, levels));
    return;
  }
  constexpr int FINE = 32;  // parts of a step
  int values = 0, integers = 0;  // sums of squares
  auto integer = [&](float steps) {
    int q = whole(steps + middle, 0, levels), odd = 2 * q - 15;
    int fine = whole(steps * FINE, -8 * FINE, 8 * FINE);
    values += fine * fine, integers += odd * odd;
    return q;
  };
  for (int c = 0; c < n / 2; c++)
    payload[c] = uint8_t(integer(x[c] / step) + 16 * integer(x[c + n / 2] / step));
  float length = std::sqrt(float(values)) / (std::sqrt(float(integers)) / 2);
  *scale = narrow(std::max(SMALLEST, step * length / FINE));
}

// The token's floats: what its channels lack in scale and place is in spread and centre.
void read_token(int n, int bits, const uint8_t *__restrict payload, float scale,
                const float *__restrict centre, const float *__restrict spread,
                float *__restrict out) {
  float middle = float((1 << bits) - 1) / 2;
  int half = n / 2;
  if (bits == 8) {
    for (int c = 0; c < n; c++)
      out[c] = (float(payload[c]) - middle) * scale * spread[c] + centre[c];
    return;
  }
  for (int c = 0; c < half; c++)
    out[c] = (float(payload[c] & 15) - middle) * scale * spread[c] + centre[c];
  for (int c = 0; c < half; c++)
    out[c + half] = (float(payload[c] >> 4) - middle) * scale * spread[c + half] + centre[c + half];
}

inline int tokens_of_tile(long tokens, long from) {
  return int(tokens - from < LANES ? tokens - from : LANES);
}

// Tokens in lanes ---------------------------------------------------------------------------------

// What is on the left of a product: numbers at weights + i * row + k * step; what is added to its
// rows: a bias for each, if there are any, and a matrix laid out as the result; and what happens
// to negative sums.
struct Left {
  const float *weights;
  long row, step;
  const float *bias = nullptr, *residual = nullptr;
  bool relu = false;
};

// out[i * pitch + x] = sum over k of left(i, k) * right(k)[x], for R rows from `first` on and C
// vectors from x on; H: only half of the last one counts.
template <int R, int C, bool H, class Right>
inline __attribute__((always_inline)) void tile(int first, int n, const Left &left, Right right,
                                                long x, float *out, long pitch) {
  const float *weights = left.weights + first * left.row;
  const long row = left.row, step = left.step;
  Vector sums[R][C];
  HalfVector halves[R];
  for (int i = 0; i < R; i++) {
    for (int c = 0; c < C; c++) {
      long at = (first + i) * pitch + x + c * WIDTH;
      sums[i][c] = left.residual ? load(left.residual + at) : Vector{};
      if (left.bias) sums[i][c] += left.bias[first + i];
    }
    halves[i] = half(sums[i][C - 1]);
  }
  for (int k = 0; k < n; k++) {
    Vector some[C];
    for (int c = 0; c < C - H; c++) some[c] = load(right(k) + x + c * WIDTH);
    HalfVector last = half(load(right(k) + x + (C - 1) * WIDTH));
    for (int i = 0; i < R; i++) {
      float factor = weights[i * row + k * step];
      for (int c = 0; c < C - H; c++) sums[i][c] += factor * some[c];
      if (H) halves[i] += factor * last;
    }
  }
  for (int i = 0; i < R; i++) {
    if (H) sums[i][C - 1] = whole(halves[i]);
    for (int c = 0; c < C; c++)
      store(out + (first + i) * pitch + x + c * WIDTH,
            left.relu ? max(sums[i][c], Vector{}) : sums[i][c]);
  }
}

template <int C, bool H, class Right>
void column(int rows, int n, const Left &left, Right right, long x, float *out, long pitch) {
  int i = 0;
  for (; i + ROWS <= rows; i += ROWS) {
    if (left.step == 1 && i + 3 * ROWS <= rows)
      fetch(left.weights + (i + 2 * ROWS) * left.row, ROWS * n);
    tile<ROWS, C, H>(i, n, left, right, x, out, pitch);
  }
  for (; i < rows; i++) tile<1, C, H>(i, n, left, right, x, out, pitch);
}

// Half vectors of so many lanes.
inline long half_vectors(long lanes) { return (lanes + WIDTH / 2 - 1) / (WIDTH / 2); }

// All rows, from x = first until last, which is rounded up to whole vectors.
template <class Right>
void tiles(int rows, int n, const Left &left, Right right, long first, long last, float *out,
           long pitch) {
  constexpr int THREE = std::min(3, COLUMNS);
  for (long x = first; x < last; x += COLUMNS * WIDTH) switch (half_vectors(last - x)) {
      case 1: case 2: column<1, false>(rows, n, left, right, x, out, pitch); break;
      case 3: case 4: column<2, false>(rows, n, left, right, x, out, pitch); break;
      case 5: case 6: column<THREE, false>(rows, n, left, right, x, out, pitch); break;
      case 7: column<COLUMNS, HALVES>(rows, n, left, right, x, out, pitch); break;
      default: column<COLUMNS, false>(rows, n, left, right, x, out, pitch);
    }
}

// out [rows][LANES] = left times b [n][LANES], as far as there are lanes.
void product(int lanes, int rows, int n, const Left &left, const float *b, float *out,
             long threads = 1) {
  auto right = [b](int k) { return b + k * LANES; };
  if (threads < 2 || long(rows) * n < SHARED_WEIGHTS)
    return tiles(rows, n, left, right, 0, lanes, out, LANES);
  share_range(threads, rows, 4 * ROWS, [&](long first, long last) {
    Left part = left;
    part.weights += first * left.row;
    if (left.bias) part.bias += first;
    if (left.residual) part.residual += first * LANES;
    tiles(int(last - first), n, part, right, 0, lanes, out + first * LANES, LANES);
  });
}

// Lanes of tokens [tokens][channels], whose rows are `row` apart; lanes without a token are zero.
void into_lanes(int tokens, int channels, const float *x, long row, float *out, float scale = 1) {
  for (int c = 0; c < channels; c++) {
    for (int t = 0; t < tokens; t++) out[c * LANES + t] = x[t * row + c] * scale;
    for (int t = tokens; t < LANES; t++) out[c * LANES + t] = 0;
  }
}

void out_of_lanes(int tokens, int channels, const float *x, float *out, long row) {
  for (int t = 0; t < tokens; t++)
    for (int c = 0; c < channels; c++) out[t * row + c] = x[c * LANES + t];
}

// Layer norm over the rows of x [channels][LANES]; weight and bias may be null. out may be x.
void norm_lanes(int lanes, int channels, const float *x, const float *weight, const float *bias,
                float eps, float *out) {
  for (int at = 0; at < lanes; at += WIDTH) {
    Vector mean{}, variance{};
    for (int c = 0; c < channels; c++) mean += load(x + c * LANES + at);
    mean /= float(channels);
    for (int c = 0; c < channels; c++) {
      Vector difference = load(x + c * LANES + at) - mean;
      variance += difference * difference;
    }
    Vector scale = 1.f / sqrt_lanes(variance / float(channels) + eps);
    for (int c = 0; c < channels; c++) {
      Vector y = (load(x + c * LANES + at) - mean) * scale;
      store(out + c * LANES + at, weight ? y * weight[c] + bias[c] : y);
    }
  }
}

// A normalised head x [channels][LANES] with the norm's weights and the tokens' positions; table:
// factors, summands and factors of the partner, [3][channels][LANES]. A channel's partner is a
// quarter of the channels away, within its half.
void rope_lanes(int lanes, int channels, const float *table, const float *x, float *out) {
  int quarter = channels / 4;
  const float *scale = table, *shift = table + channels * LANES,
              *partner = table + 2 * channels * LANES;
  for (int c = 0; c < channels; c++) {
    int other = c / quarter % 2 ? c - quarter : c + quarter;
    for (int at = 0; at < lanes; at += WIDTH) {
      int i = c * LANES + at;
      store(out + i, load(shift + i) + load(x + i) * load(scale + i) +
                         load(x + other * LANES + at) * load(partner + i));
    }
  }
}

// Softmax attention of lanes of queries [channels][LANES] over keys and values [count][channels], a
// block of keys at a time: what was read of earlier ones fades when a larger product comes (Milakov
// and Gimelshein, arXiv 1805.02867). weights: room for [BLOCK][LANES]; read: [channels][LANES].
void attend_lanes(int lanes, int channels, int count, const float *queries, const float *keys,
                  const float *values, float *weights, float *read) {
  Vector running_max[LANES / WIDTH], total[LANES / WIDTH];
  int vectors = (lanes + WIDTH - 1) / WIDTH;
  for (int j = 0; j < vectors; j++) running_max[j] = broadcast(-3e38f), total[j] = Vector{};
  std::memset(read, 0, sizeof(float) * channels * LANES);
  for (int from = 0; from < count; from += BLOCK) {
    int block = count - from < BLOCK ? count - from : BLOCK;
    fetch(values + long(from) * channels, long(block) * channels);
    product(lanes, block, channels, {keys + long(from) * channels, channels, 1}, queries, weights);
    for (int j = 0; j < vectors; j++) {
      float *column = weights + j * WIDTH;
      Vector now = running_max[j];
      for (int k = 0; k < block; k++) now = max(now, load(column + k * LANES));
      Vector fade = exponential(running_max[j] - now), sums = total[j] * fade;
      for (int k = 0; k < block; k++) {
        Vector weight = exponential(load(column + k * LANES) - now);
        sums += weight;
        store(column + k * LANES, weight);
      }
      if (from)
        for (int c = 0; c < channels; c++) {
          float *sum = read + c * LANES + j * WIDTH;
          store(sum, load(sum) * fade);
        }
      running_max[j] = now, total[j] = sums;
    }
    product(lanes, channels, block,
            {values + long(from) * channels, 1, channels, nullptr, read}, weights, read);
  }
  for (int j = 0; j < vectors; j++)
    for (int c = 0; c < channels; c++) {
      float *sum = read + c * LANES + j * WIDTH;
      store(sum, load(sum) / total[j]);
    }
}

// Maps --------------------------------------------------------------------------------------------

// A map [channels][height][width], channel by channel, each with a border of zeros a pixel wide, so
// that a convolution is a product whose columns are pixels, read at nine places.
struct Map {
  int channels, height, width;
  float *data;

  Map(ScratchArena &arena, int channels, int height, int width)
      : channels(channels), height(height), width(width) {
    // Vectors and shifted reads may run over the last channel's end.
    long end = LANES + 2 * pitch();
    data = arena.take(channels * plane() + end);
    std::memset(data + channels * plane(), 0, sizeof(float) * end);
    for (int c = 0; c < channels; c++) {
      std::memset(row(c, -1) - 1, 0, sizeof(float) * pitch());
      std::memset(row(c, height) - 1 + pitch(), 0, sizeof(float) * WIDTH);
    }
    zero_border();
  }
  int pitch() const { return width + 2; }
  long plane() const { return long(height + 2) * pitch() + WIDTH; }
  float *row(int channel, int y) const {  // from the first pixel inside of the border on
    return data + channel * plane() + (y + 1) * pitch() + 1;
  }
  // What vectors have written into the border is zero again.
  void zero_border() const {
    for (int c = 0; c < channels; c++) {
      for (int y = 0; y < height; y++) row(c, y)[-1] = row(c, y)[width] = 0;
      std::memset(row(c, height) - 1, 0, sizeof(float) * pitch());
    }
  }
};

// Convolve with weight [out][side][side][in], side 1 or 3; then add a map, or cut off at zero.
void convolve(long threads, const Map &in, int side, const float *weight, const float *bias,
              const Map &out, const Map *residual = nullptr, bool relu = false) {
  std::vector<const float *> at;
  for (int y = 0; y < side; y++)
    for (int x = 0; x < side; x++)
      for (int c = 0; c < in.channels; c++)
        at.push_back(in.row(c, y - side / 2) + x - side / 2);
  int n = int(at.size());
  const float *const *from = at.data();
  Left left{weight, n, 1, bias, residual ? residual->row(0, 0) : nullptr, relu};
  share_range(threads, in.height * in.pitch() - 2, COLUMNS * WIDTH, [&](long first, long last) {
    tiles(out.channels, n, left, [from](int k) { return from[k]; }, first, last, out.row(0, 0),
          out.plane());
  });
  out.zero_border();
}

// Resample, corner pixels staying corner pixels.
void resample(long threads, const Map &in, const Map &out) {
  std::vector<int> left(out.width);
  std::vector<float> right(out.width);  // the share of the pixel on the right
  float step_x = out.width > 1 ? float(in.width - 1) / (out.width - 1) : 0;
  float step_y = out.height > 1 ? float(in.height - 1) / (out.height - 1) : 0;
  for (int x = 0; x < out.width; x++) {
    left[x] = std::min(int(x * step_x), in.width - 1);
    right[x] = x * step_x - left[x];
  }
  share_range(out.width < 64 ? 1 : threads, out.channels, 1, [&](long first, long last) {
    std::vector<float> line(in.width + 1);
    for (long i = first * out.height; i < last * out.height; i++) {
      int c = int(i / out.height), y = int(i % out.height);
      int above = std::min(int(y * step_y), in.height - 1);
      float part = y * step_y - above;
      const float *upper = in.row(c, above), *lower = in.row(c, std::min(above + 1, in.height - 1));
      for (int x = 0; x < in.width; x++) line[x] = upper[x] + part * (lower[x] - upper[x]);
      line[in.width] = line[in.width - 1];
      float *to = out.row(c, y);
      for (int x = 0; x < out.width; x++)
        to[x] = line[left[x]] + right[x] * (line[left[x] + 1] - line[left[x]]);
    }
  });
}

// Add positions: columns [channels / 2][width] to the first half of the channels, rows
// [channels / 2][height] to the other.
void add_positions(const Map &map, const float *columns, const float *rows) {
  int half = map.channels / 2;
  for (int c = 0; c < map.channels; c++)
    for (int y = 0; y < map.height; y++) {
      float *to = map.row(c, y);
      for (int x = 0; x < map.width; x++)
        to[x] += c < half ? columns[c * map.width + x] : rows[(c - half) * map.height + y];
    }
}

// The weights of a head, one after the other.
struct Weights {
  const float *const *next;
  const float *take() { return *next++; }
};

// x + the second of two convolutions of x; given another map, that too, and cut off at zero.
void residual_unit(long threads, ScratchArena &arena, const Map &x, Weights &weights,
                   const Map &out, const Map *residual = nullptr) {
  Map inner(arena, x.channels, x.height, x.width);
  const float *weight = weights.take(), *bias = weights.take();
  convolve(threads, x, 3, weight, bias, inner, nullptr, true);
  weight = weights.take(), bias = weights.take();
  convolve(threads, inner, 3, weight, bias, out, &x);
  if (!residual) return;
  for (int c = 0; c < out.channels; c++)
    for (int y = 0; y < out.height; y++)
      for (int i = 0; i < out.width; i++)
        out.row(c, y)[i] = std::max(0.f, out.row(c, y)[i] + residual->row(c, y)[i]);
}

// One token ---------------------------------------------------------------------------------------

// As `rows_times`; a row's sum does not depend on the others'.
template <int R>
inline void few_rows(int n, const float *a, long row, const float *x, float *out,
                     const float *bias, bool add) {
  Vector sums[R] = {};
  if (row == n) fetch(a + AHEAD, R * n);
  int k = 0;
  for (; k + WIDTH <= n; k += WIDTH) {
    Vector right = load(x + k);
    for (int j = 0; j < R; j++) sums[j] += load(a + j * row + k) * right;
  }
  for (int j = 0; j < R; j++) {
    float total = sum(sums[j]);
    for (int rest = k; rest < n; rest++) total += a[j * row + rest] * x[rest];
    out[j] = total + (bias ? bias[j] : 0) + (add ? out[j] : 0);
  }
}

// out[i] = row i of a . x (+ bias, + out), rows `row` apart: four at a time.
void rows_times(int rows, int n, const float *a, long row, const float *x, float *out,
                const float *bias = nullptr, bool add = false, long threads = 1) {
  if (threads > 1 && long(rows) * n >= 2 * SHARED_WEIGHTS)
    return share_range(threads, rows, 16, [=](long first, long last) {
      rows_times(int(last - first), n, a + first * row, row, x, out + first,
                 bias ? bias + first : nullptr, add);
    });
  int i = 0;
  for (; i + 4 <= rows; i += 4)
    few_rows<4>(n, a + i * row, row, x, out + i, bias ? bias + i : nullptr, add);
  for (; i < rows; i++)
    few_rows<1>(n, a + i * row, row, x, out + i, bias ? bias + i : nullptr, add);
}

// weight and bias may be null.
void norm_row(int n, const float *x, const float *weight, const float *bias, float eps,
              float *out) {
  float mean = 0, variance = 0;
  for (int k = 0; k < n; k++) mean += x[k];
  mean /= n;
  for (int k = 0; k < n; k++) variance += (x[k] - mean) * (x[k] - mean);
  float scale = 1 / std::sqrt(variance / n + eps);
  if (!weight)
    for (int k = 0; k < n; k++) out[k] = (x[k] - mean) * scale;
  else
    for (int k = 0; k < n; k++) out[k] = (x[k] - mean) * scale * weight[k] + bias[k];
}

void gelu_row(int n, float *x) {
  int k = 0;
  for (; k + WIDTH <= n; k += WIDTH) store(x + k, gelu(load(x + k)));
  for (; k < n; k++) x[k] = gelu(broadcast(x[k]))[0];
}

// x / (1 + exp(-x)); where exp would be too large, the result is no more than 1e-36 off zero.
void silu_row(int n, float *x) {
  auto silu = [](Vector y) { return y / (1.f + exponential(-max(y, broadcast(-87.f)))); };
  int k = 0;
  for (; k + WIDTH <= n; k += WIDTH) store(x + k, silu(load(x + k)));
  for (; k < n; k++) x[k] = silu(broadcast(x[k]))[0];
}

// out[0..N vectors] = scale * sum over t of weights[t] * row t, rows `row` apart.
template <int N>
inline void add_rows(int count, long row, const float *weights, const float *rows, float scale,
                     float *out) {
  Vector sums[N] = {};
  for (int t = 0; t < count; t++, rows += row) {
    fetch(rows + AHEAD, N * WIDTH);
    for (int j = 0; j < N; j++) sums[j] += weights[t] * load(rows + j * WIDTH);
  }
  for (int j = 0; j < N; j++) store(out + j * WIDTH, sums[j] * scale);
}

// weights: room for `count` floats.
void attend_row(int channels, int count, float scale, const float *query, const float *keys,
                const float *values, float *weights, float *out) {
  rows_times(count, channels, keys, channels, query, weights);
  Vector running_max = broadcast(-3e38f), total{};
  float tail_max = -3e38f, tail_total = 0;
  int whole = count / WIDTH * WIDTH;
  for (int t = 0; t < whole; t += WIDTH) running_max = max(running_max, load(weights + t));
  for (int t = whole; t < count; t++) tail_max = std::fmax(tail_max, weights[t]);
  for (int i = 0; i < WIDTH; i++) tail_max = std::fmax(tail_max, running_max[i]);
  for (int t = 0; t < whole; t += WIDTH) {
    Vector weight = exponential((load(weights + t) - tail_max) * scale);
    total += weight;
    store(weights + t, weight);
  }
  for (int t = whole; t < count; t++)
    tail_total += weights[t] = exponential(broadcast((weights[t] - tail_max) * scale))[0];
  tail_total += sum(total);
  int c = 0;
  for (; c + 8 * WIDTH <= channels; c += 8 * WIDTH)
    add_rows<8>(count, channels, weights, values + c, 1 / tail_total, out + c);
  for (; c + WIDTH <= channels; c += WIDTH)
    add_rows<1>(count, channels, weights, values + c, 1 / tail_total, out + c);
  for (; c < channels; c++) {
    float sums = 0;
    for (int t = 0; t < count; t++) sums += weights[t] * values[long(t) * channels + c];
    out[c] = sums / tail_total;
  }
}

#include "frame_attention.h"
#include "heads.h"
#include "packed_attention.h"
#include "rounded_rows.h"
#include "voxels.h"

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Grows when what is below changes its arguments or its meaning.
int xsvggt_version() { return 10; }

// Take a GOMP_parallel, or null: then there is one thread.
void xsvggt_use_thread_team(void *gomp_parallel) {
  thread_team =
      reinterpret_cast<void (*)(void (*)(void *), void *, unsigned, unsigned)>(gomp_parallel);
}

// Queries, keys and values [heads][tokens][channels / heads] of x [tokens][channels]: layer norm,
// product with weight [3 channels][channels], and, if there is a table [tiles][2][3][head][LANES],
// each head's own norm and position.
void xsvggt_norm_qkv(long threads, long tokens, long channels, long heads, const float *x,
                   const float *norm_weight, const float *norm_bias, float eps,
                   const float *weight, const float *bias, const float *table, float head_eps,
                   float *queries, float *keys, float *values) {
  int n = int(channels), head = int(channels / heads);
  float *parts[3] = {queries, keys, values};
  if (tokens == 1 && !table) {
    ScratchArena arena;
    float *normal = arena.take(n);
    norm_row(n, x, norm_weight, norm_bias, eps, normal);
    for (int part = 0; part < 3; part++)
      rows_times(n, n, weight + part * n * n, n, normal, parts[part], bias + part * n, false,
                 threads);
    return;
  }
  ScratchArena arena;
  float *normal = arena.take(n * LANES), *packed = arena.take(3 * n * LANES),
        *turned = arena.take(head * LANES);
  for (long from = 0; from < tokens; from += LANES) {
    int lanes = tokens_of_tile(tokens, from);
    into_lanes(lanes, n, x + from * n, n, normal);
    norm_lanes(lanes, n, normal, norm_weight, norm_bias, eps, normal);
    product(lanes, 3 * n, n, {weight, n, 1, bias}, normal, packed, threads);
    for (int part = 0; part < 3; part++)
      for (int h = 0; h < heads; h++) {
        float *one = packed + (part * n + h * head) * LANES;
        if (table && part < 2) {
          norm_lanes(lanes, head, one, nullptr, nullptr, head_eps, one);
          const float *own_table = table + (from / LANES * 2 + part) * 3 * head * LANES;
          rope_lanes(lanes, head, own_table, one, turned);
          one = turned;
        }
        out_of_lanes(lanes, head, one, parts[part] + (h * tokens + from) * head, head);
      }
  }
}

// out [tokens][channels] = y + the MLP of its norm, where y = x + the projection of what was read
// [tokens][channels]. The MLP has `hidden` channels and a GELU inside.
void xsvggt_proj_mlp(long threads, long tokens, long channels, long hidden, const float *x,
                  const float *read, const float *weight, const float *bias,
                  const float *norm_weight, const float *norm_bias, float eps,
                  const float *weight1, const float *bias1, const float *weight2,
                  const float *bias2, float *out) {
  int n = int(channels), inside = int(hidden);
  if (tokens == 1) {
    ScratchArena arena;
    float *normal = arena.take(n), *inner = arena.take(inside);
    std::memcpy(out, x, sizeof(float) * n);
    rows_times(n, n, weight, n, read, out, bias, true, threads);
    norm_row(n, out, norm_weight, norm_bias, eps, normal);
    rows_times(inside, n, weight1, n, normal, inner, bias1, false, threads);
    gelu_row(inside, inner);
    rows_times(n, inside, weight2, inside, inner, out, bias2, true, threads);
    return;
  }
  ScratchArena arena;
  float *stream = arena.take(n * LANES), *normal = arena.take(n * LANES),
        *inner = arena.take(inside * LANES);
  for (long from = 0; from < tokens; from += LANES) {
    int lanes = tokens_of_tile(tokens, from);
    into_lanes(lanes, n, x + from * n, n, stream);
    into_lanes(lanes, n, read + from * n, n, normal);
    product(lanes, n, n, {weight, n, 1, bias, stream}, normal, stream, threads);
    norm_lanes(lanes, n, stream, norm_weight, norm_bias, eps, normal);
    product(lanes, inside, n, {weight1, n, 1, bias1}, normal, inner, threads);
    for (int c = 0; c < inside; c++)
      for (int at = 0; at < lanes; at += WIDTH) {
        float *some = inner + c * LANES + at;
        store(some, gelu(load(some)));
      }
    product(lanes, n, inside, {weight2, inside, 1, bias2, stream}, inner, stream, threads);
    out_of_lanes(lanes, n, stream, out + from * n, n);
  }
}

// out [tokens][heads][head] = softmax(queries . keys * scale) values. Heads and tokens of the
// queries, and heads of keys and of values, are so many floats apart.
void xsvggt_attend(long threads, long heads, long tokens, long head, long count, float scale,
                   const float *queries, long query_head, long query_token, const float *keys,
                   long key_head, const float *values, long value_head, float *out) {
  int d = int(head), n = int(count), tiles = int((tokens + LANES - 1) / LANES);
  share(threads, int(heads) * tiles, [=](int i) {
    long h = i / tiles, from = i % tiles * LANES;
    const float *own_queries = queries + h * query_head + from * query_token,
                *own_keys = keys + h * key_head, *own_values = values + h * value_head;
    ScratchArena arena;
    if (tokens == 1)
      return attend_row(d, n, scale, own_queries, own_keys, own_values, arena.take(n),
                        out + h * d);
    int lanes = tokens_of_tile(tokens, from);
    float *lane_queries = arena.take(d * LANES), *read = arena.take(d * LANES);
    into_lanes(lanes, d, own_queries, query_token, lane_queries, scale);
    attend_lanes(lanes, d, n, lane_queries, own_keys, own_values, arena.take(BLOCK * LANES), read);
    out_of_lanes(lanes, d, read, out + (from * heads + h) * d, heads * d);
  });
}

// Put a step's tokens into their slots, `keys` and `values` [heads][slots][head], and attend to the
// first `count` slots: `xsvggt_attend`. Heads and tokens of the step are so many floats apart.
void xsvggt_store_and_attend(long threads, long heads, long tokens, long head, long count,
                             float scale, const float *queries, long query_head, long query_token,
                             const int64_t *slots, const float *own_keys, long own_key_head,
                             long own_key_token, const float *own_values, long own_value_head,
                             long own_value_token, float *keys, long key_head, float *values,
                             long value_head, float *out) {
  for (long h = 0; h < heads; h++)
    for (long t = 0; t < tokens; t++) {
      std::memcpy(keys + h * key_head + slots[t] * head,
                  own_keys + h * own_key_head + t * own_key_token, sizeof(float) * head);
      std::memcpy(values + h * value_head + slots[t] * head,
                  own_values + h * own_value_head + t * own_value_token, sizeof(float) * head);
    }
  xsvggt_attend(threads, heads, tokens, head, count, scale, queries, query_head, query_token, keys,
                key_head, values, value_head, out);
}

// A block whose tokens attend to each other: `xsvggt_norm_qkv`, `xsvggt_attend`, `xsvggt_proj_mlp`.
void xsvggt_block(long threads, long tokens, long channels, long heads, long hidden, const float *x,
                  const float *norm_weight, const float *norm_bias, float eps, const float *weight,
                  const float *bias, const float *table, float head_eps, const float *proj,
                  const float *proj_bias, const float *norm2_weight, const float *norm2_bias,
                  float eps2, const float *weight1, const float *bias1, const float *weight2,
                  const float *bias2, float *out) {
  ScratchArena arena;
  long all = tokens * channels, head = channels / heads;
  float *queries = arena.take(4 * all), *keys = queries + all, *values = keys + all,
        *read = values + all;
  xsvggt_norm_qkv(threads, tokens, channels, heads, x, norm_weight, norm_bias, eps, weight, bias,
                  table, head_eps, queries, keys, values);
  xsvggt_attend(threads, heads, tokens, head, tokens, 1 / std::sqrt(float(head)), queries,
                tokens * head, head, keys, tokens * head, values, tokens * head, read);
  xsvggt_proj_mlp(threads, tokens, channels, hidden, x, read, proj, proj_bias, norm2_weight,
                  norm2_bias, eps2, weight1, bias1, weight2, bias2, out);
}

// out [rows] = weight [rows][n] times x + bias, + residual, then a GELU; residual may be null.
void xsvggt_row(long threads, long rows, long n, const float *weight, const float *x,
                const float *bias, const float *residual, int gelu_too, float *out) {
  if (residual) std::memcpy(out, residual, sizeof(float) * rows);
  rows_times(int(rows), int(n), weight, n, x, out, bias, residual != nullptr, threads);
  if (gelu_too) gelu_row(int(rows), out);
}

// What a backbone whose blocks see one frame and the stream in turn computes before the attention
// of layer `layer` over the stream. `read` [tokens][channels] is the output of that of the layer
// before, null where there is none: first comes the rest of its block. Then follow, unless all
// `depth` layers have been, the block that sees the frame and, to `out` [3][heads][tokens][head],
// queries, keys and values of the next one. pairs: [depth][tokens][2 channels], what both blocks of
// each layer make. state: [2][tokens][channels], the stream before and after the rest of a block;
// it begins in the second. all_weights: of both blocks of each layer, the one that sees the frame
// first, the norm, queries, keys and values, projection, norm, and the two layers of the MLP;
// tables: theirs of `xsvggt_norm_qkv`; eps: of their two norms.
void xsvggt_backbone(long threads, long tokens, long channels, long heads, long hidden, long depth,
                     long layer, const float *const *all_weights, const float *const *tables,
                     const float *eps, float head_eps, const float *read, float *state,
                     float *pairs, float *out) {
  constexpr long BLOCK_WEIGHTS = 12;
  long all = tokens * channels;
  float *stream = state, *next = state + all;
  auto keep = [=](long of, const float *from, long second) {
    float *to = pairs + of * 2 * all + second * channels;
    for (long t = 0; t < tokens; t++)
      std::memcpy(to + t * 2 * channels, from + t * channels, sizeof(float) * channels);
  };
  if (read) {
    const float *const *w = all_weights + (2 * layer - 1) * BLOCK_WEIGHTS;
    xsvggt_proj_mlp(threads, tokens, channels, hidden, stream, read, w[4], w[5], w[6], w[7],
                    eps[4 * layer - 1], w[8], w[9], w[10], w[11], next);
    keep(layer - 1, next, 1);
  }
  if (layer == depth) return;
  const float *const *w = all_weights + 2 * layer * BLOCK_WEIGHTS;
  xsvggt_block(threads, tokens, channels, heads, hidden, next, w[0], w[1], eps[4 * layer], w[2],
               w[3], tables[2 * layer], head_eps, w[4], w[5], w[6], w[7], eps[4 * layer + 1], w[8],
               w[9], w[10], w[11], stream);
  keep(layer, stream, 0);
  w += BLOCK_WEIGHTS;
  xsvggt_norm_qkv(threads, tokens, channels, heads, stream, w[0], w[1], eps[4 * layer + 2], w[2],
                  w[3], tables[2 * layer + 1], head_eps, out, out + all, out + 2 * all);
}

// Tokens out [patches][channels] of rows * columns patches of an image, [3][height][width]:
// its colours, each with a scale and a shift of its own, through weight [channels][3][side][side].
void xsvggt_patches(long threads, long rows, long columns, long side, long channels,
                    const float *image, const float *scale, const float *shift,
                    const float *weight, const float *bias, float *out) {
  int n = int(3 * side * side), all = int(channels);
  long patches = rows * columns;
  ScratchArena arena;
  float *pixels = arena.take(n * LANES), *tokens = arena.take(all * LANES);
  for (long from = 0; from < patches; from += LANES) {
    int lanes = tokens_of_tile(patches, from);
    std::memset(pixels, 0, sizeof(float) * n * LANES);
    for (long c = 0; c < 3; c++)
      for (int t = 0; t < lanes; t++) {
        long row = (from + t) / columns, column = (from + t) % columns;
        for (long y = 0; y < side; y++) {
          const float *some = image + (((c * rows + row) * side + y) * columns + column) * side;
          float *to = pixels + (c * side + y) * side * LANES + t;
          for (long x = 0; x < side; x++) to[x * LANES] = some[x] * scale[c] + shift[c];
        }
      }
    product(lanes, all, n, {weight, n, 1, bias}, pixels, tokens, threads);
    out_of_lanes(lanes, all, tokens, out + from * all, all);
  }
}

// What a camera head computes for one token before the attention of a block, of iteration
// `iteration` and layer `layer`. `read` [channels] is the output of the attention before that one,
// null where there was none: first comes the rest of its block, and behind the last block the pose
// [9] of its iteration, which goes to `poses`, with fields of view that are not negative. Then
// follow, unless all `iterations` have been, the token of a new iteration and, to `out`
// [3][channels], queries, keys and values. state: [3 channels + 9], the token, its norm, the stream
// and the pose, as the call before has left them; for the first one the token without its norm.
// all_weights: the pose that all begin with; the norm of the token, the norm behind the trunk, what
// embeds a pose, what makes shift, scale and gate of that, and two layers with `inner` channels
// between that make a change of the pose; then, of each of `depth` blocks, its norm, queries, keys
// and values, projection, norm, and the two layers of its MLP. eps: of the norm of the token, of
// the norm behind the trunk, and of the two of each block.
void xsvggt_camera(long threads, long channels, long hidden, long inner, long depth,
                   long iterations, long iteration, long layer, const float *const *all_weights,
                   const float *eps, const float *read, float *state, float *poses, float *out) {
  constexpr int POSE = 9, TOKEN_WEIGHTS = 13, BLOCK_WEIGHTS = 12;
  constexpr float NORMAL_EPS = 1e-6f;
  int n = int(channels), between = int(inner);
  const float *const *w = all_weights;
  float *token = state, *normal = state + n, *stream = state + 2 * n, *pose = state + 3 * n;
  ScratchArena arena;
  if (read) {
    long before = (layer + depth - 1) % depth;
    const float *const *b = w + TOKEN_WEIGHTS + before * BLOCK_WEIGHTS;
    float *next = arena.take(n);
    xsvggt_proj_mlp(threads, 1, channels, hidden, stream, read, b[4], b[5], b[6], b[7],
                    eps[3 + 2 * before], b[8], b[9], b[10], b[11], next);
    std::memcpy(stream, next, sizeof(float) * n);
  } else {
    norm_row(n, token, w[1], w[2], eps[0], token);
    norm_row(n, token, nullptr, nullptr, NORMAL_EPS, normal);
    std::memcpy(pose, w[0], sizeof(float) * POSE);
  }
  if (read && layer == 0) {
    float *some = arena.take(n), *inside = arena.take(between), change[POSE];
    norm_row(n, stream, w[3], w[4], eps[1], some);
    rows_times(between, n, w[9], n, some, inside, w[10], false, threads);
    gelu_row(between, inside);
    rows_times(POSE, between, w[11], between, inside, change, w[12]);
    float *to = poses + (iteration - 1) * POSE;
    for (int i = 0; i < POSE; i++) {
      pose[i] = change[i] + (iteration == 1 ? 0 : pose[i]);
      to[i] = i >= 7 && pose[i] < 0 ? 0 : pose[i];
    }
  }
  if (iteration == iterations) return;
  if (layer == 0) {
    float *embedded = arena.take(n), *parts = arena.take(3 * n);
    rows_times(n, POSE, w[5], POSE, pose, embedded, w[6]);
    silu_row(n, embedded);
    rows_times(3 * n, n, w[7], n, embedded, parts, w[8], false, threads);
    const float *shift = parts, *scale = parts + n, *gate = parts + 2 * n;
    for (int i = 0; i < n; i++)
      stream[i] = token[i] + gate[i] * (shift[i] + normal[i] * (1 + scale[i]));
  }
  const float *const *b = w + TOKEN_WEIGHTS + layer * BLOCK_WEIGHTS;
  xsvggt_norm_qkv(threads, 1, channels, 1, stream, b[0], b[1], eps[2 + 2 * layer], b[2], b[3],
                  nullptr, 0, out, out + n, out + 2 * n);
}

// out [layers][heads][count] = vectors . keys; layers and heads of either are so many floats apart.
void xsvggt_products(long threads, long layers, long heads, long count, long head,
                     const float *vectors, long vector_layer, long vector_head, const float *keys,
                     long key_layer, long key_head, float *out) {
  share(threads, int(layers * heads), [=](int i) {
    long l = i / heads, h = i % heads;
    rows_times(int(count), int(head), keys + l * key_layer + h * key_head, head,
               vectors + l * vector_layer + h * vector_head, out + i * count);
  });
}

// A dense head: out [channels][height][width] of four layers' tokens [rows * columns][dim], without
// the final activation. widths: channels of the four levels and of the maps that are fused, then of
// the map before the last. All weights of convolutions are [out][y][x][in], those of the transposed
// ones [in][y][x][out]. all_weights: the norm; for each level its projection, its resizing (none in
// the third) and its positions; for each level the convolution that begins the fusion; from the
// fourth to the first level the fusion (none of a first unit in the fourth); what comes after, with
// positions between.
void xsvggt_dense(long threads, long rows, long columns, long patch, long dim,
                  const long *widths, long channels,
                  const float *const *layers, const float *const *all_weights, float eps,
                  float *out) {
  ScratchArena arena;
  Weights weights{all_weights};
  int height = int(rows), width = int(columns), n = int(dim), fused = int(widths[4]);
  int patches = height * width, tiles = (patches + LANES - 1) / LANES;
  const float *norm = weights.take(), *norm_bias = weights.take();
  long widest = std::max({dim, widths[0], widths[1], widths[2], widths[3]});
  float *lanes = arena.take(widest * LANES),
        *projected = arena.take(std::max({widest, 16 * widths[0], 4 * widths[1]}) * LANES);
  std::vector<Map> levels;
  for (int level = 0; level < 4; level++) {
    int own = int(widths[level]);
    Map map(arena, own, height, width);
    const float *weight = weights.take(), *bias = weights.take();
    for (int t = 0; t < tiles; t++) {
      int some = tokens_of_tile(patches, t * LANES);
      into_lanes(some, n, layers[level] + long(t) * LANES * n, n, lanes);
      norm_lanes(some, n, lanes, norm, norm_bias, eps, lanes);
      product(some, own, n, {weight, n, 1, bias}, lanes, projected);
      for (int c = 0; c < own; c++)
        for (int i = 0; i < some; i++)
          map.row(c, (t * LANES + i) / width)[(t * LANES + i) % width] = projected[c * LANES + i];
    }
    const float *resize = nullptr, *resize_bias = nullptr;
    if (level != 2) resize = weights.take(), resize_bias = weights.take();
    const float *position = weights.take();
    add_positions(map, position, weights.take());
    if (level < 2) {  // a transposed convolution whose patches do not overlap
      int side = level ? 2 : 4;
      Map large(arena, own, side * height, side * width);
      for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x += LANES) {
          int some = tokens_of_tile(width, x);
          for (int c = 0; c < own; c++) {
            std::memcpy(lanes + c * LANES, map.row(c, y) + x, sizeof(float) * some);
            std::fill(lanes + c * LANES + some, lanes + (c + 1) * LANES, 0.f);
          }
          int all_rows = side * side * own;
          product(some, all_rows, own, {resize, 1, all_rows}, lanes, projected);
          for (int j = 0; j < all_rows; j++) {
            int at = j / own, c = j % own;
            float *to = large.row(c, y * side + at / side) + at % side;
            for (int i = 0; i < some; i++)
              to[(x + i) * side] = projected[j * LANES + i] + resize_bias[c];
          }
        }
      levels.push_back(large);
    } else if (level == 2) {
      levels.push_back(map);
    } else {  // every second pixel of a convolution
      Map every(arena, own, height, width),
          half(arena, own, (height + 1) / 2, (width + 1) / 2);
      convolve(threads, map, 3, resize, resize_bias, every);
      for (int c = 0; c < own; c++)
        for (int y = 0; y < half.height; y++)
          for (int x = 0; x < half.width; x++) half.row(c, y)[x] = every.row(c, 2 * y)[2 * x];
      levels.push_back(half);
    }
  }
  for (Map &level : levels) {
    Map begun(arena, fused, level.height, level.width);
    convolve(threads, level, 3, weights.take(), nullptr, begun, nullptr, true);
    level = begun;
  }
  Map x = levels[3];
  for (int level = 3; level >= 0; level--) {
    const Map &skip = levels[level];
    if (level < 3) {
      Map both(arena, fused, x.height, x.width);
      residual_unit(threads, arena, skip, weights, both, &x);
      x = both;
    }
    Map inner(arena, fused, x.height, x.width), last(arena, fused, x.height, x.width);
    residual_unit(threads, arena, x, weights, inner);
    const float *weight = weights.take(), *bias = weights.take();
    convolve(threads, inner, 1, weight, bias, last);
    Map large(arena, fused, level ? levels[level - 1].height : 2 * x.height,
              level ? levels[level - 1].width : 2 * x.width);
    resample(threads, last, large);
    x = large;
  }
  Map narrow(arena, int(widths[5]), x.height, x.width);
  const float *weight = weights.take(), *bias = weights.take();
  convolve(threads, x, 3, weight, bias, narrow);
  Map whole(arena, narrow.channels, int(rows * patch), int(columns * patch));
  resample(threads, narrow, whole);
  const float *position = weights.take();
  add_positions(whole, position, weights.take());
  Map inner(arena, int(widths[6]), whole.height, whole.width),
      result(arena, int(channels), whole.height, whole.width);
  weight = weights.take(), bias = weights.take();
  convolve(threads, whole, 3, weight, bias, inner, nullptr, true);
  weight = weights.take(), bias = weights.take();
  convolve(threads, inner, 1, weight, bias, result);
  for (int c = 0; c < result.channels; c++)
    for (int y = 0; y < result.height; y++, out += result.width)
      std::memcpy(out, result.row(c, y), sizeof(float) * result.width);
}

// Keys and values of a layer as `packing.TokenLayer` has them: `payloads`, `halves` and `tables`
// apart are their heads.
struct xsvggt_layer {
  uint8_t *key_payload, *value_payload;
  Half *key_scale, *value_scale, *statistics;
  int32_t *rows;
  long payloads, halves, tables, head, bits;
};

// Pack a frame's tokens [heads][tokens][head] into their slots, described by a row of statistics.
void xsvggt_insert(long threads, const xsvggt_layer *layer, long heads, long tokens,
                   const int64_t *row, const int64_t *slots, const float *keys, long key_head,
                   long key_token, const float *values, long value_head, long value_token) {
  const xsvggt_layer &l = *layer;
  int n = int(l.head), bits = int(l.bits);
  for (long t = 0; t < tokens; t++) l.rows[slots[t]] = int32_t(*row);
  share(threads, int(2 * heads), [=](int i) {
    long h = i / 2, kind = i % 2, bytes = n * bits / 8;
    const float *from = kind ? values + h * value_head : keys + h * key_head;
    long step = kind ? value_token : key_token;
    uint8_t *payload = (kind ? l.value_payload : l.key_payload) + h * l.payloads;
    Half *scale = (kind ? l.value_scale : l.key_scale) + h * l.halves;
    Half *centres = l.statistics + h * l.tables + (*row * 4 + 2 * kind) * n, *spreads = centres + n;
    ScratchArena arena;
    float *work = arena.take(3 * n), *centre = work, *spread = work + n, *x = work + 2 * n;
    frame_statistics(n, tokens, from, step, work, centres, spreads);
    widen(n, centres, centre), widen(n, spreads, spread);
    for (long t = 0; t < tokens; t++) {
      for (int c = 0; c < n; c++) x[c] = (from[t * step + c] - centre[c]) / spread[c];
      write_token(n, bits, x, payload + slots[t] * bytes, scale + slots[t]);
    }
  });
}

// Unpack the first `count` slots into keys and values [heads][count][head].
void xsvggt_decode(long threads, const xsvggt_layer *layer, long heads, long count, float *keys,
                   long key_head, float *values, long value_head) {
  constexpr long PART = 256;  // tokens
  const xsvggt_layer &l = *layer;
  int n = int(l.head), bits = int(l.bits);
  long parts = (count + PART - 1) / PART, bytes = n * bits / 8;
  share(threads, int(heads * parts), [=](int i) {
    long h = i / parts, first = i % parts * PART, last = std::min(count, first + PART), known = -1;
    ScratchArena arena;
    float *statistics = arena.take(4 * n);  // of the row that is known
    for (long t = first; t < last; t++) {
      if (l.rows[t] != known) {
        known = l.rows[t];
        widen(4 * n, l.statistics + h * l.tables + known * 4 * n, statistics);
      }
      read_token(n, bits, l.key_payload + h * l.payloads + t * bytes,
                 wide(l.key_scale[h * l.halves + t]), statistics, statistics + n,
                 keys + h * key_head + t * n);
      read_token(n, bits, l.value_payload + h * l.payloads + t * bytes,
                 wide(l.value_scale[h * l.halves + t]), statistics + 2 * n, statistics + 3 * n,
                 values + h * value_head + t * n);
    }
  });
}

// Attend to the first `count` slots of a layer, out [tokens][heads][head], of which a step's own
// tokens are read as floats. If there is a table of `seen`, [count], what one more query of each
// head [heads][head] sees is written there: the sum over the heads of its softmax over all tokens.
void xsvggt_attend_packed(long threads, const xsvggt_layer *layer, long heads, long tokens,
                          long count, float scale, const float *queries, long query_head,
                          long query_token, const int64_t *slots, long own, const float *keys,
                          long key_head, long key_token, const float *values, long value_head,
                          long value_token, const float *extra, float *seen, float *out) {
#ifdef XSVGGT_MULTIPLIES_16_BITS
  const xsvggt_layer &l = *layer;
  int n = int(l.head);
  const PackedOrder order(l.rows, int(l.tables / (4 * n)), int(count), slots, int(own));
  int all = int(tokens) + (extra ? 1 : 0), tiles = (all + LANES - 1) / LANES;
  std::vector<float> products(extra ? heads * count : 0);
  share(threads, int(heads) * tiles, [&](int i) {
    long h = i / tiles, from = i % tiles * LANES;
    ScratchArena arena;
    float *lane_queries = arena.take(n * LANES), *read = arena.take(n * LANES);
    int lanes = tokens_of_tile(tokens, from), lane = -1;
    into_lanes(lanes, n, queries + h * query_head + from * query_token, query_token, lane_queries,
               scale * LOG2_E);
    if (extra && i % tiles == tiles - 1) {
      lane = lanes++;
      for (int c = 0; c < n; c++)
        lane_queries[c * LANES + lane] = extra[h * n + c] * (scale * LOG2_E);
    }
    Reader reader{lanes, n, lane_queries, read, arena.take(BLOCK * LANES), {}, {}};
    reader.begin();
    float *own_products = lane < 0 ? nullptr : products.data() + h * count;
    for (long t = 0; t < own; t += BLOCK) {
      const float *own_keys = keys + h * key_head + t * key_token;
      int some = int(std::min(own - t, long(BLOCK)));
      if (own_products)
        for (int k = 0; k < some; k++)
          own_products[slots[t + k]] = dot(n, own_keys + k * key_token, extra + h * n) *
                                       (scale * LOG2_E);
      reader.read_floats(some, own_keys, key_token, values + h * value_head + t * value_token,
                         value_token);
    }
    PackedHead packed_keys{l.key_payload + h * l.payloads, l.key_scale + h * l.halves,
                           l.statistics + h * l.tables, n, int(l.bits)},
        packed_values{l.value_payload + h * l.payloads, l.value_scale + h * l.halves,
                      l.statistics + h * l.tables + 2 * n, n, int(l.bits)};
    (adds_products() ? read_packed<true> : read_packed<false>)(
        reader, packed_keys, packed_values, order, lane, own_products, arena);
    reader.end();
    out_of_lanes(lanes - (lane >= 0), n, read, out + (from * heads + h) * n, heads * n);
  });
  for (long h = 0; extra && h < heads; h++)
    add_softmax(int(count), products.data() + h * count, seen, h > 0);
#else
  (void)threads, (void)layer, (void)heads, (void)tokens, (void)count, (void)scale, (void)queries,
      (void)query_head, (void)query_token, (void)slots, (void)own, (void)keys, (void)key_head,
      (void)key_token, (void)values, (void)value_head, (void)value_token, (void)extra, (void)seen,
      (void)out;
#endif
}

// Attention of tokens in bf16 to each other: out [tokens][heads][head] in bf16. Heads and tokens
// are so many numbers apart; head: a multiple of 32, up to 64, that `xsvggt_attends_packed` takes.
void xsvggt_attend_frame(long threads, long heads, long tokens, long head, float scale,
                         const Brain *queries, long query_head, long query_token, const Brain *keys,
                         long key_head, long key_token, const Brain *values, long value_head,
                         long value_token, Brain *out) {
#ifdef XSVGGT_MULTIPLIES_16_BITS
  BrainRows own_queries{queries, query_head, query_token}, own_keys{keys, key_head, key_token},
      own_values{values, value_head, value_token};
  share(threads, int(heads), [&](int h) {
    (adds_products() ? attend_frame<true> : attend_frame<false>)(
        h, heads, int(tokens), int(head), scale, own_queries, own_keys, own_values, out);
  });
#else
  (void)threads, (void)heads, (void)tokens, (void)head, (void)scale, (void)queries,
      (void)query_head, (void)query_token, (void)keys, (void)key_head, (void)key_token,
      (void)values, (void)value_head, (void)value_token, (void)out;
#endif
}

// Whether `xsvggt_attend_packed` and `xsvggt_attend_frame` do anything here, for heads of so many
// channels.
int xsvggt_attends_packed(long head) {
#ifdef XSVGGT_MULTIPLIES_16_BITS
  return head % 2 == 0 && head <= MOST_CHANNELS;
#else
  return head < 0;
#endif
}

// Take rows [count][10], positions in voxels, into a map; `once`: as one cloud. counts: voxels that
// are new, and rows that found no place.
void xsvggt_voxels_insert(long, const xsvggt_voxels *table, long count, const float *rows,
                          long once, long *counts) {
  ScratchArena arena;
  VoxelPoints points(*table, count, arena);
  for (long i = 0; i < count; i++) {
    std::memcpy(points.next(), rows + i * COLUMN_COUNT, sizeof(float) * COLUMN_COUNT);
    points.take();
  }
  counts[1] = points.find_places();
  counts[0] = points.merge(once);
}

// Take a cloud [count][5] of positions, colour and confidence into a map: see `CloudRows`.
void xsvggt_voxels_add(long, const xsvggt_voxels *table, long count, const float *cloud,
                       const float *from_cloud, float size, float per_size, float least_off,
                       const float *squared_errors, long first, long entries, long shift,
                       float keyframe, long *counts) {
  CloudRows rows{from_cloud, size,    per_size, least_off, squared_errors,
                 first,      entries, shift,    keyframe};
  ScratchArena arena;
  VoxelPoints points(*table, count, arena);
  for (long i = 0; i < count; i++)
    if (rows.write(cloud + i * 5, points.next())) points.take();
  counts[1] = points.find_places();
  counts[0] = points.merge(true);
}

// Norms and positions of queries and keys, in x [tokens][3][heads][head] in fp32 or bf16; tables
// and out are of another precision, or of that one: see `Places`. head: a multiple of 16.
void xsvggt_place_heads(long threads, long tokens, long heads, long head, float eps, void *x,
                        int brain, void *scale, void *shift, void *partner, int tables_brain,
                        void *out) {
  bool own = tables_brain;
  Places places{heads, int(head), eps, {x, bool(brain)}, {scale, own}, {shift, own},
                {partner, own}, {out, own}};
  share_range(threads, tokens, 8, [&](long first, long last) {
    ScratchArena arena;
    float *work = arena.take(places.floats());
    for (long i = first; i < last; i++) places.run(i, work);
  });
}

// Round tokens x [rows][channels] in fp32 or bf16 to out, room for 2 rows of each: see
// `round_rows`, which says how many there are. count: that.
void xsvggt_round_rows(long threads, long rows, long channels, void *x, int brain, float heavy,
                       int8_t *out, float *scales, int32_t *again, int32_t *count) {
  *count = round_rows(threads, rows, int(channels), {x, bool(brain)}, heavy, out, scales, again);
}

// Make numbers out [rows][channels] of sums: see `Finish`.
void xsvggt_finish_rows(long threads, long rows, long channels, const int32_t *sums,
                        const float *scales, const int32_t *again, const float *channel_scales,
                        const float *bias, int gelu, void *residual, int residual_brain, void *out,
                        int out_brain) {
  Finish finish{sums, again, scales, channel_scales, bias, bool(gelu),
                {residual, bool(residual_brain)}, {out, bool(out_brain)}};
  share_range(threads, rows, 8, [&](long first, long last) {
    ScratchArena arena;
    float *row = arena.take(channels), *other = arena.take(channels);
    for (long i = first; i < last; i++) finish.run(i, int(channels), row, other);
  });
}

}  // extern "C"
