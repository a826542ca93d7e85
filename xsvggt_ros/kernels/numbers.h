// Rows of numbers in fp32 or bf16: a part of native.cpp.

#pragma once

typedef uint16_t Brain;  // bfloat16: the upper half of a float

inline float wide_brain(Brain x) {
  uint32_t bits = uint32_t(x) << 16;
  float out;
  std::memcpy(&out, &bits, sizeof out);
  return out;
}

inline Brain narrow_brain(float x) {  // half to even
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return x != x ? 0x7fc0 : Brain(rounded);
}

// Rows of numbers in fp32 or bf16.
struct Numbers {
  void *at;
  bool brain;

  void read(long row, int n, float *__restrict to) const {
    if (brain) {
      const Brain *from = static_cast<const Brain *>(at) + row * n;
      for (int i = 0; i < n; i++) to[i] = wide_brain(from[i]);
    } else {
      std::memcpy(to, static_cast<const float *>(at) + row * n, n * sizeof *to);
    }
  }
  void write(long row, int n, const float *__restrict from) const {
    if (brain) {
      Brain *to = static_cast<Brain *>(at) + row * n;
      for (int i = 0; i < n; i++) to[i] = narrow_brain(from[i]);
    } else {
      std::memcpy(static_cast<float *>(at) + row * n, from, n * sizeof *from);
    }
  }
};
