// Queries and keys of wide layers, normalised and given their positions: a part of native.cpp.

#include "numbers.h"

// The norm and the rotary position of heads, as `positions.fold_norm_into_rope` folds them: what a
// channel is scaled by, what is added, and how much of its partner; [tokens][2][head] each.
struct Places {
  long heads;
  int head;
  float eps;
  Numbers x, scale, shift, partner, out;  // x, out: [tokens][3][heads][head]

  // work: room for `floats` numbers.
  long floats() const { return (3 * heads + 7) * head; }
  void run(long token, float *__restrict work) const {
    int n = int(heads) * head;
    float *row = work, *tables = work + 3 * n, *partners = tables + 6 * head;
    x.read(token, 3 * n, row);
    scale.read(token, 2 * head, tables), shift.read(token, 2 * head, tables + 2 * head);
    partner.read(token, 2 * head, tables + 4 * head);
    for (long i = 0; i < 2 * heads; i++) place(row + i * head, tables + i / heads * head, partners);
    out.write(token, 3 * n, row);
  }

  void place(float *__restrict y, const float *__restrict table, float *__restrict partners) const {
    float mean = total(y, [](Vector v) { return v; }) / float(head);
    float variance = total(y, [&](Vector v) { return (v - mean) * (v - mean); }) / float(head);
    float inverse = 1 / std::sqrt(variance + eps);
    for (int c = 0; c < head; c++) y[c] = (y[c] - mean) * inverse;
    int quarter = head / 4;
    for (int q = 0; q < 4; q++)
      std::memcpy(partners + q * quarter, y + (q ^ 1) * quarter, quarter * sizeof *y);
    for (int c = 0; c < head; c++)
      y[c] = y[c] * table[c] + table[2 * head + c] + partners[c] * table[4 * head + c];
  }

  // The sum of what a function makes of the numbers of a head, a multiple of WIDTH.
  template <class Function>
  float total(const float *y, const Function &function) const {
    Vector sums{};
    for (int c = 0; c < head; c += WIDTH) sums += function(load(y + c));
    return sum(sums);
  }
};
