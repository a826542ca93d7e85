// A map of voxels, to which clouds are added: a part of native.cpp.
//
// The same as `mapping/voxel_table.py` does with PyTorch on one thread of a CPU, to the last bit: each product and each
// sum is rounded by itself, a voxel's points are added up in their order, and of several voxels
// that want a free place the last one gets it.

#if defined(__clang__)
#pragma float_control(push)
#pragma clang fp contract(off)
#else
#pragma GCC push_options
#pragma GCC optimize("fp-contract=off")
#endif

constexpr int VOXEL_BITS = 21;                     // of a voxel's index in each direction
constexpr float FAR = float(1 << (VOXEL_BITS - 1));  // voxels from the origin
constexpr int PROBES = 24;                         // places in which a voxel may lie
constexpr int COLUMN_COUNT = 10;                   // of a voxel's row
constexpr float MOST_SEEN = 32;                    // clouds that a mean remembers
constexpr float LEAST_WEIGHT = 1e-6f;
constexpr int64_t FREE = -1;

// A table of 2^bits places: keys [places], rows [places][COLUMN_COUNT] of position in the voxel,
// colour, sums of weights and confidences, clouds and keyframe.
struct xsvggt_voxels {
  int64_t *keys;
  float *rows;
  long bits;
};

// Rows of points that look for their voxels: position in voxels, then in the voxel; the rest as
// in the table, with one for clouds.
class VoxelPoints {
 public:
  VoxelPoints(const xsvggt_voxels &table, long most, ScratchArena &arena)
      : table_(table), mask_((int64_t(1) << table.bits) - 1), arena_(arena) {
    keys_ = reinterpret_cast<int64_t *>(arena.take(2 * most));
    rows_ = arena.take(COLUMN_COUNT * most);
    places_ = reinterpret_cast<int32_t *>(arena.take(2 * most)), steps_ = places_ + most;
  }

  // Where the next point's row is to be written, before `take`.
  float *next() { return rows_ + count_ * COLUMN_COUNT; }

  void take() {
    float *row = next(), weight = row[6];
    int64_t key = 0;
    for (int i = 0; i < 3; i++) {
      float whole = std::floor(row[i]);
      key |= (int64_t(whole) + (int64_t(1) << (VOXEL_BITS - 1))) << (i * VOXEL_BITS);
      row[i] = (row[i] - whole) * weight;
    }
    for (int i = 3; i < 6; i++) row[i] *= weight;
    // The odd constants of splitmix64.
    uint64_t mixed = uint64_t(key ^ (key >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
    keys_[count_] = key;
    places_[count_] = int32_t(mixed >> (64 - table_.bits));
    steps_[count_] = int32_t((mixed & mask_) | 1);
    __builtin_prefetch(table_.keys + places_[count_]);
    count_++;
  }

  // Find a place for each point; those that find none get -1, and their number is returned.
  long find_places() {
    auto *left = reinterpret_cast<int32_t *>(arena_.take(count_));
    long lefts = count_;
    for (long i = 0; i < count_; i++) left[i] = int32_t(count_ - 1 - i);  // the last one first
    for (int probe = 0; probe < PROBES && lefts; probe++) {
      long missed = 0;
      for (long j = 0; j < lefts; j++) {
        int32_t i = left[j];
        int64_t &there = table_.keys[places_[i]];
        if (there == FREE) there = keys_[i];
        if (there == keys_[i]) continue;
        places_[i] = int32_t((int64_t(places_[i]) + steps_[i]) & mask_);
        __builtin_prefetch(table_.keys + places_[i]);
        left[missed++] = i;
      }
      lefts = missed;
    }
    for (long j = 0; j < lefts; j++) places_[left[j]] = -1;
    return lefts;
  }

  // Add the points of one place up, and take them into the means of the table; `once`: they count
  // as one cloud. Returns how many voxels are new.
  long merge(bool once) {
    constexpr long AHEAD_ROWS = 24;
    long voxels = 0, taken = 0;
    float *sums = add_up(voxels);
    for (long g = 0; g < voxels; g++) {
      if (g + AHEAD_ROWS < voxels) {
        const float *ahead = table_.rows + long(groups_[g + AHEAD_ROWS]) * COLUMN_COUNT;
        __builtin_prefetch(ahead, 1), __builtin_prefetch(ahead + COLUMN_COUNT - 1, 1);
      }
      taken += merge_row(sums + g * COLUMN_COUNT, once,
                         table_.rows + long(groups_[g]) * COLUMN_COUNT);
    }
    return taken;
  }

 private:
  // Return the sums [voxels][COLUMN_COUNT] of the points of each voxel, whose places are `groups_`.
  float *add_up(long &voxels) {
    long size = 2;
    while (size < 2 * count_) size *= 2;
    float *sums = arena_.take(COLUMN_COUNT * count_);
    groups_ = reinterpret_cast<int32_t *>(arena_.take(count_));
    // Numbers of voxels by the end of their places, or after others that end alike.
    auto *numbers = reinterpret_cast<int32_t *>(arena_.take(size));
    std::fill_n(numbers, size, -1);
    for (long i = 0; i < count_; i++) {
      int32_t place = places_[i];
      if (place < 0) continue;
      long at = place & (size - 1);
      while (numbers[at] >= 0 && groups_[numbers[at]] != place) at = (at + 1) & (size - 1);
      const float *row = rows_ + i * COLUMN_COUNT;
      float *sum = sums + (numbers[at] < 0 ? voxels : numbers[at]) * COLUMN_COUNT;
      if (numbers[at] < 0) {
        numbers[at] = int32_t(voxels), groups_[voxels++] = place;
        for (int c = 0; c < COLUMN_COUNT; c++) sum[c] = 0 + row[c];
        continue;
      }
      for (int c = 0; c < COLUMN_COUNT - 1; c++) sum[c] += row[c];
      sum[9] = row[9] > sum[9] ? row[9] : sum[9];
    }
    return sums;
  }

  // Take the sums of one voxel into its row; returns whether it is new.
  static bool merge_row(float *sum, bool once, float *row) {
    for (int c = 0; c < 6; c++) sum[c] /= sum[6];
    if (once) sum[6] /= sum[8], sum[7] /= sum[8], sum[8] = 1;
    bool is_new = row[8] == 0;
    float share = sum[6] / (row[6] + sum[6]);
    for (int c = 0; c < 6; c++) row[c] += share * (sum[c] - row[c]);
    for (int c = 6; c < 9; c++) row[c] += sum[c];
    float fade = MOST_SEEN / row[8];
    fade = fade < 1 ? fade : 1;
    for (int c = 6; c < 9; c++) row[c] *= fade;
    row[9] = sum[9] > row[9] ? sum[9] : row[9];
    return is_new;
  }

  const xsvggt_voxels &table_;
  const int64_t mask_;
  ScratchArena &arena_;
  long count_ = 0;
  int64_t *keys_;
  float *rows_;
  int32_t *places_, *steps_, *groups_ = nullptr;
};

// How a cloud becomes rows. from_cloud: [3][4]; size: of a voxel; squared_errors [entries]: of
// depths, relative, by the bits of their confidences without the last `shift`, from `first` on, or
// null; least_off: the least squared error of a position, in voxels.
struct CloudRows {
  const float *from_cloud;
  float size, per_size, least_off;
  const float *squared_errors;
  long first, entries, shift;
  float keyframe;

  // Write the row of a point [5]; returns whether it is one.
  bool write(const float *point, float *row) const {
    float x = point[0], y = point[1], z = point[2], confidence = point[4];
    bool good = std::fabs(confidence) < INFINITY;
    for (int i = 0; i < 3; i++) {
      const float *m = from_cloud + 4 * i;
      row[i] = (m[0] * x + m[1] * y + m[2] * z + m[3]) / size;
      good = good && std::fabs(row[i]) < FAR;
    }
    if (!good) return false;
    int32_t colour;
    std::memcpy(&colour, point + 3, sizeof colour);
    for (int i = 0; i < 3; i++) row[3 + i] = float(colour >> (16 - 8 * i) & 255);
    row[6] = weight(x, y, z, confidence), row[7] = confidence, row[8] = 1, row[9] = keyframe;
    return true;
  }

  float weight(float x, float y, float z, float confidence) const {
    if (!squared_errors) return confidence < LEAST_WEIGHT ? LEAST_WEIGHT : confidence;
    int32_t bits;
    std::memcpy(&bits, &confidence, sizeof bits);
    long at = std::min(std::max((long(bits) >> shift) - first, 0L), entries - 1);
    x *= per_size, y *= per_size, z *= per_size;
    float off = squared_errors[at] * (x * x + y * y + z * z);
    return 1 / (off < least_off ? least_off : off);
  }
};

#if defined(__clang__)
#pragma float_control(pop)
#else
#pragma GCC pop_options
#endif
