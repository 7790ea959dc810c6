// pack.cpp: converting strided arrays to one dtype, in C order without gaps.
#include "pack.hpp"

#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "../../cpp/src/cpu/convert.hpp"
#include "../../cpp/src/cpu/dispatch.hpp"
#include "device_array.hpp"
#include "optimisers/cuda.hpp"
#include "optimisers/threads.hpp"

namespace optimisers::python {
namespace {

constexpr std::int64_t chunk = 1 << 16;  // elements a task copies

template <class T>
constexpr bool is_narrow = std::is_same_v<T, Half> || std::is_same_v<T, BHalf>;

// By way of double, so that an integer is rounded once.
template <class To, class From>
To converted(From a) {
  if constexpr (is_narrow<To> && std::is_integral_v<From>) return cpu::convert<To>(static_cast<double>(a));
  else if constexpr (is_complex<From> && !is_complex<To>) return cpu::convert<To>(a.re);
  else return cpu::convert<To>(a);
}

template <class To>
To sum(To a, To b) {
  if constexpr (is_narrow<To>) return cpu::convert<To>(cpu::convert<float>(a) + cpu::convert<float>(b));
  else return a + b;
}

// Walks an array in C order from element `begin` on.
class Cursor {
 public:
  Cursor(const ArrayView& a, std::int64_t begin) : a_(a), at_(a.data) {
    std::int64_t unit = size_of(a.dtype);
    for (int i = a.ndim - 1; i >= 0; --i) {
      step_[i] = a.strides ? a.strides[i] * a.stride_unit : unit;
      unit *= a.shape[i];
      index_[i] = begin % a.shape[i];
      begin /= a.shape[i];
      at_ += index_[i] * step_[i];
    }
  }
  // How many elements follow one another on the last axis, and how far apart.
  std::int64_t run() const { return a_.ndim == 0 ? 1 : a_.shape[a_.ndim - 1] - index_[a_.ndim - 1]; }
  std::int64_t step() const { return a_.ndim == 0 ? 0 : step_[a_.ndim - 1]; }
  const std::byte* at() const { return at_; }
  void advance(std::int64_t n) {
    int i = a_.ndim - 1;
    if (i < 0) return;
    index_[i] += n;
    at_ += n * step_[i];
    for (; i > 0 && index_[i] == a_.shape[i]; --i) {
      at_ += step_[i - 1] - index_[i] * step_[i];
      index_[i] = 0;
      ++index_[i - 1];
    }
  }

 private:
  const ArrayView& a_;
  const std::byte* at_;
  std::int64_t step_[64], index_[64];
};

template <class To, class From>
void copy_run(const std::byte* from, std::int64_t step, std::byte* to, std::int64_t n, bool add) {
  if (!add && std::is_same_v<To, From> && step == static_cast<std::int64_t>(sizeof(To))) {
    std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(To));
    return;
  }
  for (std::int64_t i = 0; i < n; ++i) {
    From a;
    std::memcpy(&a, from + i * step, sizeof a);
    To b = converted<To>(a);
    if (add) {
      To old;
      std::memcpy(&old, to + i * static_cast<std::int64_t>(sizeof b), sizeof b);
      b = sum(old, b);
    }
    std::memcpy(to + i * static_cast<std::int64_t>(sizeof b), &b, sizeof b);
  }
}

using CopyRun = void (*)(const std::byte*, std::int64_t, std::byte*, std::int64_t, bool);

CopyRun copy_run_of(DType to, DType from) {
  CopyRun run = nullptr;
  cpu::with_dtype(to, [&](auto t) {
    using To = decltype(t);
    if constexpr (!std::is_integral_v<To>) cpu::with_dtype(from, [&](auto f) { run = copy_run<To, decltype(f)>; });
  });
  return run;
}

// Elements [begin, end) of the segment.
void copy_range(const Segment& s, std::byte* vector, DType dtype, std::int64_t begin, std::int64_t end) {
  const std::int64_t unit = size_of(dtype);
  std::byte* to = vector + (s.begin + begin) * unit;
  if (!s.array.present) {
    std::memset(to, 0, static_cast<std::size_t>((end - begin) * unit));
    return;
  }
  const CopyRun copy = copy_run_of(dtype, s.array.dtype);
  ArrayView flat = s.array;
  const std::int64_t size = s.size;
  if (is_contiguous(flat)) {
    flat.ndim = 1;
    flat.shape = &size;
    flat.strides = nullptr;
  }
  Cursor cursor(flat, begin);
  for (std::int64_t left = end - begin; left > 0;) {
    const std::int64_t n = std::min(cursor.run(), left);
    copy(cursor.at(), cursor.step(), to, n, s.add);
    cursor.advance(n);
    to += n * unit;
    left -= n;
  }
}

struct Task {
  const Segment* segment;
  std::int64_t begin, end;
};

}  // namespace

namespace {

// Further arrays of a segment follow in rounds, as each adds to what is there.
void pack_on_device(const std::vector<Segment>& segments, const ArrayView& vector) {
  std::vector<ArrayView> to, from;
  const auto enqueue = [&](bool add) {
    if (!to.empty()) cuda::transfer(vector.device, to, from, add);
    to.clear(), from.clear();
  };
  std::unordered_set<std::int64_t> added;
  const auto take = [&](const Segment& s) {
    ArrayView part = s.array;
    part.data = vector.data + s.begin * size_of(vector.dtype);
    part.strides = nullptr;
    part.dtype = vector.dtype;
    to.push_back(part);
    from.push_back(s.array);
  };
  std::vector<ArrayView> missing;
  for (const Segment& s : segments) {
    if (s.add || s.size == 0) continue;
    if (s.array.present) take(s);
    else
      missing.push_back({vector.data + s.begin * size_of(vector.dtype), &s.size, nullptr, 1, 1, vector.dtype, true,
                         true, vector.device});
  }
  enqueue(false);
  device_zero(missing);
  for (const Segment& s : segments) {
    if (!s.add || s.size == 0) continue;
    if (!added.insert(s.begin).second) {
      enqueue(true);
      added = {s.begin};
    }
    take(s);
  }
  enqueue(true);
}

}  // namespace

void pack(const std::vector<Segment>& segments, const ArrayView& vector) {
  if (vector.device != on_host) return pack_on_device(segments, vector);
  std::vector<Task> tasks;
  std::int64_t total = 0;
  for (const Segment& s : segments) {
    if (s.add) continue;
    total += s.size;
    for (std::int64_t begin = 0; begin < s.size; begin += chunk)
      tasks.push_back({&s, begin, std::min(begin + chunk, s.size)});
  }
  const int parts = total > chunk ? get_num_threads() : 1;
  const std::size_t n = tasks.size(), p = static_cast<std::size_t>(parts);
  auto run = [&](int part) {
    const std::size_t i = static_cast<std::size_t>(part);
    for (std::size_t t = n * i / p; t < n * (i + 1) / p; ++t)
      copy_range(*tasks[t].segment, vector.data, vector.dtype, tasks[t].begin, tasks[t].end);
  };
  if (parts == 1) run(0);
  else parallel(parts, run);
  for (const Segment& s : segments)
    if (s.add && s.size > 0) copy_range(s, vector.data, vector.dtype, 0, s.size);
}

}  // namespace optimisers::python
