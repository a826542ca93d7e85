// Tokens for products of 8 bits, and what becomes of their sums: a part of native.cpp.
//
// The products themselves are PyTorch's. Each token [channels] has a scale of its own, by which its
// largest number is 127. A token with a few numbers far larger than the others would lose the
// others: what its integers leave out is rounded again, by a 254th of the scale, and goes through
// the product as a row of its own.

#include "numbers.h"

constexpr float MOST_INTEGER = 127, AGAIN = 2 * MOST_INTEGER;

// The scale of a token, no number if one of its own is none; and whether it is rounded twice.
float scale_of_row(int n, const float *x, float heavy, int32_t *twice) {
  Vector tops{}, squares{}, none{};
  float top = 0, square = 0, zero = 0;
  int i = 0;
  for (; i + WIDTH <= n; i += WIDTH) {
    Vector some = load(x + i);
    tops = max(tops, max(some, -some)), squares += some * some, none += 0.f * some;
  }
  for (; i < n; i++)
    top = std::max(top, std::fabs(x[i])), square += x[i] * x[i], zero += 0 * x[i];
  for (int k = 0; k < WIDTH; k++) top = std::max(top, tops[k]);
  square += sum(squares), zero += sum(none);
  *twice = top * top * float(n) > heavy * heavy * square;
  return zero == 0 ? std::max(top, 1e-30f) / MOST_INTEGER : zero;
}

void round_row(int n, const float *__restrict x, float inverse, int8_t *__restrict out) {
  for (int i = 0; i < n; i++)
    out[i] = int8_t(whole(x[i] * inverse, -MOST_INTEGER, MOST_INTEGER));
}

// Tokens x into out, and what those that are rounded twice leave out behind them. again: for each
// token the row of out where that is, below 0 if nowhere. Returns how many rows there are.
int round_rows(long threads, long rows, int n, const Numbers &x, float heavy, int8_t *out,
               float *scales, int32_t *again) {
  share_range(threads, rows, 8, [&](long first, long last) {
    ScratchArena arena;
    float *row = arena.take(n);
    for (long i = first; i < last; i++) {
      x.read(i, n, row);
      scales[i] = scale_of_row(n, row, heavy, again + i);
      round_row(n, row, 1 / scales[i], out + i * n);
    }
  });
  int count = int(rows);
  ScratchArena arena;
  float *row = arena.take(n);
  for (long i = 0; i < rows; i++) {
    if (!again[i]) {
      again[i] = -1;
      continue;
    }
    const int8_t *integers = out + i * n;
    x.read(i, n, row);
    for (int k = 0; k < n; k++) row[k] -= float(integers[k]) * scales[i];
    round_row(n, row, AGAIN / scales[i], out + count * long(n));
    again[i] = count++;
  }
  return count;
}

// As `gelu`, by one polynomial: erf(x / sqrt 2) / x in x^2, fitted at Chebyshev's nodes up to
// |x| / sqrt 2 = 3.9, beyond which erf is 1. Absolute error of erf 3e-7.
inline Vector gelu_by_polynomial(Vector x) {
  constexpr float END = 5.51543289f, SQUARE = 30.42f;
  Vector z = max(x, broadcast(-END));
  z = z < END ? z : broadcast(END);
  Vector y = z * polynomial(
      z * z * (2 / SQUARE) - 1.f,
      {0.00137765003f, -0.00298341986f, 0.00128444987f, -0.00208596651f, 0.00968774965f,
       -0.0160927247f, 0.0205455072f, -0.0293128006f, 0.040964525f, -0.0523854332f,
       0.0641103674f, -0.0774325174f, 0.0952411514f, -0.127994667f, 0.256385584f});
  y = x > END ? broadcast(1) : x < -END ? broadcast(-1) : y;
  return 0.5f * x * (1.f + y);
}

// What becomes of sums [rows][n]: scaled by token and channel, the bias added, then a GELU, or
// others added.
struct Finish {
  const int32_t *sums, *again;
  const float *scales, *channels, *bias;
  bool is_gelu;
  Numbers residual, out;  // there may be no residual

  void run(long i, int n, float *__restrict row, float *__restrict other) const {
    const int32_t *own = sums + i * n, *rest = again[i] < 0 ? nullptr : sums + again[i] * long(n);
    if (residual.at) residual.read(i, n, other);
    int k = 0;
    for (; k + WIDTH <= n; k += WIDTH) {
      Vector x = made(i, load(own + k), rest ? load(rest + k) : Vector{}, load(channels + k),
                      load(bias + k));
      store(row + k, residual.at ? x + load(other + k) : x);
    }
    for (; k < n; k++) {
      Vector x = made(i, broadcast(float(own[k])), broadcast(rest ? float(rest[k]) : 0.f),
                      broadcast(channels[k]), broadcast(bias[k]));
      row[k] = residual.at ? x[0] + other[k] : x[0];
    }
    out.write(i, n, row);
  }

  static Vector load(const float *from) { return ::load(from); }
  static Vector load(const int32_t *from) {
    Integers whole;
    std::memcpy(&whole, from, sizeof whole);
    return __builtin_convertvector(whole, Vector);
  }
  Vector made(long i, Vector own, Vector rest, Vector scale, Vector added) const {
    Vector x = (own + rest * (1 / AGAIN)) * scales[i] * scale + added;
    return is_gelu ? gelu_by_polynomial(x) : x;
  }
};
