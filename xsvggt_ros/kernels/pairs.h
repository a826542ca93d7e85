// Products of numbers of 16 bits, two of them in one instruction: a part of native.cpp.
//
// As everywhere, tokens lie in lanes, a whole vector of them at a time; where half of the last
// vector is enough, that takes half as long on processors that halve vectors themselves.

#if defined(__AVX2__)
#define XSVGGT_MULTIPLIES_16_BITS 1

typedef Integers LooseIntegers __attribute__((aligned(4), may_alias));
typedef int16_t Shorts __attribute__((vector_size(WIDTH * 4)));
template <class V>  // a Vector or a HalfVector: what follows takes both
using IntegersOf = decltype(V{} < V{});

template <class V>
inline V load_as(const void *from) {
  V x;
  std::memcpy(&x, from, sizeof x);
  return x;
}
template <class V>
inline void store_as(void *to, V x) { std::memcpy(to, &x, sizeof x); }
// The first part of a vector, and one with zeros behind what there is.
template <class V>
inline V first(Vector x) { return load_as<V>(&x); }
template <class V>
inline Vector filled(V x) {
  Vector out{};
  store_as(&out, x);
  return out;
}
template <class V>
inline V larger(V a, V b) { return a < b ? b : a; }

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

template <class I>  // of a whole vector, or half of one
inline void add_products(I &sum, I a, I b) {
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

#if defined(__AVX512BW__)
template <bool Fused>
inline void add_pairs(IntegersOf<HalfVector> &sum, IntegersOf<HalfVector> a,
                      IntegersOf<HalfVector> b) {
  if (Fused) return add_products(sum, a, b);
  sum += reinterpret_cast<IntegersOf<HalfVector>>(
      _mm256_madd_epi16(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}
#endif

// Numbers below 2^15 in size, rounded, two in 32 bits.
template <class V>
inline IntegersOf<V> pair(V low, V high) {
  auto a = reinterpret_cast<IntegersOf<V>>(low + 12582912.f),
       b = reinterpret_cast<IntegersOf<V>>(high + 12582912.f);
  return (a & 0xffff) | (b << 16);
}

inline int32_t word(int low, int high) { return int32_t(uint32_t(high) << 16) | (low & 0xffff); }

// 2^x for x <= 0, or next to nothing; Cephes' exp2f: relative error 2e-7.
template <class V>
inline V power_of_two(V x) {
  x = larger(x, V{} - 126.f);
  V shifted = x + 12582912.f;  // rounds to the nearest integer, which is its low bits
  x = x - (shifted - 12582912.f);
  V y = polynomial(x, {1.535336188319500e-4f, 1.339887440266574e-3f, 9.618437357674640e-3f,
                       5.550332471162809e-2f, 2.402264791363012e-1f, 6.931472028550421e-1f, 1.f});
  auto power = reinterpret_cast<IntegersOf<V>>(shifted) << 23;
  return reinterpret_cast<V>(reinterpret_cast<IntegersOf<V>>(y) + power);
}

// sums[i][c] = over k of left[i * row + k * step] times right[k][c], for R rows and C vectors; H:
// only half of the last one counts.
template <bool Fused, int R, int C, bool H>
__attribute__((noinline)) void sum_pairs(int n, const int32_t *left, long row,
                                                     long step, const int32_t *right,
                                                     Integers (&sums)[R][C]) {
  typedef IntegersOf<HalfVector> HalfIntegers;
  Integers own[R][C] = {};  // in registers, which takes loops that are unrolled early
  HalfIntegers halves[R] = {};
  for (int k = 0; k < n; k++) {
    Integers some[C];
#pragma GCC unroll 8
    for (int c = 0; c < C - H; c++) some[c] = load(right + k * LANES + c * WIDTH);
    HalfIntegers last = load_as<HalfIntegers>(right + k * LANES + (C - 1) * WIDTH);
#pragma GCC unroll 8
    for (int i = 0; i < R; i++) {
      int32_t factor = left[i * row + k * step];
#pragma GCC unroll 8
      for (int c = 0; c < C - H; c++) add_pairs<Fused>(own[i][c], factor - Integers{}, some[c]);
      if (H) add_pairs<Fused>(halves[i], factor - HalfIntegers{}, last);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < R; i++) {
#pragma GCC unroll 8
    for (int c = 0; c < C - H; c++) sums[i][c] = own[i][c];
    if (H) sums[i][C - 1] = Integers{}, store_as(&sums[i][C - 1], halves[i]);
  }
}

// Call `work` with how many vectors from lane `from` on there are, and whether half of the last
// one is enough.
#define XSVGGT_COLUMNS(work, lanes, from, ...)                                    \
  switch (half_vectors((lanes) - (from))) {                                       \
    case 1: case 2: work<1, false>(__VA_ARGS__); break;                           \
    case 3: case 4: work<2, false>(__VA_ARGS__); break;                           \
    case 5: case 6: work<std::min(3, COLUMNS), false>(__VA_ARGS__); break;        \
    case 7: work<COLUMNS, HALVES>(__VA_ARGS__); break;                            \
    default: work<COLUMNS, false>(__VA_ARGS__);                                   \
  }
#endif
