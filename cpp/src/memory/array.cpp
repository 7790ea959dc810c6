// array.cpp: where arrays lie in memory, and which of them share it.
#include "optimisers/array.hpp"

#include <algorithm>
#include <map>
#include <numeric>

#include "memory/overlap.hpp"
#include "optimisers/error.hpp"

namespace optimisers::inline OPT_ABI {

Extent extent_of(const ArrayView& a) {
  auto lo = reinterpret_cast<std::uintptr_t>(a.data), hi = lo;
  const std::int64_t item = size_of(a.dtype);
  if (a.strides == nullptr) return {lo, lo + static_cast<std::uintptr_t>(size_of(a) * item)};
  for (int i = 0; i < a.ndim; ++i) {
    if (a.shape[i] == 0) return {lo, lo};
    const std::int64_t reach = (a.shape[i] - 1) * a.strides[i] * a.stride_unit;
    (reach < 0 ? lo : hi) += static_cast<std::uintptr_t>(reach);
  }
  return {lo, hi + static_cast<std::uintptr_t>(item)};
}

std::vector<std::int64_t> c_strides(std::span<const std::int64_t> shape, std::int64_t unit) {
  std::vector<std::int64_t> strides(shape.size());
  for (std::size_t i = shape.size(); i-- > 0;) {
    strides[i] = unit;
    unit *= shape[i];
  }
  return strides;
}

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string s = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
  return s + (shape.size() == 1 ? ",)" : ")");
}

namespace {

struct Axis {
  std::int64_t stride, size;
  int axis;
};

// Axes that step through memory, largest step first: two arrays with the same list (axis numbers aside) and the
// same first element hold the same elements.
std::vector<Axis> stepping_axes(const ArrayView& a) {
  std::vector<Axis> axes;
  std::int64_t dense = size_of(a.dtype);
  for (int i = a.ndim - 1; i >= 0; --i) {
    const std::int64_t stride = a.strides ? a.strides[i] * a.stride_unit : dense;
    if (a.shape[i] != 1) axes.push_back({stride, a.shape[i], i});
    dense *= a.shape[i];
  }
  std::sort(axes.begin(), axes.end(), [](const Axis& l, const Axis& r) { return l.stride > r.stride; });
  return axes;
}

// True if no two index tuples reach the same byte, by the sizes alone; false: not known.
bool surely_injective(const ArrayView& a) {
  std::int64_t reach = size_of(a.dtype);
  auto axes = stepping_axes(a);
  std::sort(axes.begin(), axes.end(), [](auto& l, auto& r) { return std::abs(l.stride) < std::abs(r.stride); });
  for (const Axis& x : axes) {
    if (std::abs(x.stride) < reach) return false;
    reach += std::abs(x.stride) * (x.size - 1);
  }
  return true;
}

// One bit per byte of [lo, hi): exact for any strides, and linear, which no closed form is.
class Bytes {
 public:
  Bytes(std::uintptr_t lo, std::uintptr_t hi) : lo_(lo), hi_(hi), bits_((hi - lo + 63) / 64) {}
  // Marks the array's bytes inside the range; false if one was marked before.
  bool mark(const ArrayView& a) {
    bool fresh = true;
    for_each_bit(a, [&](std::uint64_t& word, std::uint64_t bit) {
      fresh &= (word & bit) == 0;
      word |= bit;
    });
    return fresh;
  }
  bool holds_any(const ArrayView& a) {
    bool any = false;
    for_each_bit(a, [&](std::uint64_t word, std::uint64_t bit) { any |= (word & bit) != 0; });
    return any;
  }

 private:
  template <class F>
  void for_each_bit(const ArrayView& a, F&& f) {
    for_each_run(a, 0, size_of(a), [&](const std::byte* p, std::int64_t stride, std::int64_t n) {
      for (std::int64_t i = 0; i < n; ++i) {
        const auto first = reinterpret_cast<std::uintptr_t>(p + i * stride);
        for (auto at = first; at < first + static_cast<std::uintptr_t>(size_of(a.dtype)); ++at)
          if (at >= lo_ && at < hi_) f(bits_[(at - lo_) / 64], std::uint64_t(1) << ((at - lo_) % 64));
      }
    });
  }
  std::uintptr_t lo_, hi_;
  std::vector<std::uint64_t> bits_;
};

bool overlaps_itself(const ArrayView& a) {
  if (is_contiguous(a) || surely_injective(a)) return false;
  const Extent e = extent_of(a);
  return !Bytes(e.lo, e.hi).mark(a);
}

[[noreturn]] void throw_overlap(std::string_view call, const std::string& a, const std::string& b) {
  throw Error(ErrorKind::value,
              std::string(call) + ": arrays at \"" + a + "\" and \"" + b +
                  "\" share some of their memory without being the same array or an axis "
                  "permutation of it; give each its own memory (a copy)",
              b);
}

// The same elements as `first`, with axes in another order? Fills alias.axes if so.
bool same_elements(const ArrayView& first, const ArrayView& a, Alias& alias) {
  if (first.data != a.data || first.dtype != a.dtype || first.ndim != a.ndim) return false;
  const auto l = stepping_axes(first), r = stepping_axes(a);
  if (l.size() != r.size()) return false;
  std::vector<int> axes(static_cast<std::size_t>(a.ndim), -1);
  std::vector<bool> used(axes.size(), false);
  for (std::size_t i = 0; i < l.size(); ++i) {
    if (l[i].stride != r[i].stride || l[i].size != r[i].size) return false;
    axes[static_cast<std::size_t>(l[i].axis)] = r[i].axis;
    used[static_cast<std::size_t>(r[i].axis)] = true;
  }
  for (std::size_t i = 0, free = 0; i < axes.size(); ++i) {  // axes of length 1, in order
    if (axes[i] >= 0) continue;
    while (used[free]) ++free;
    axes[i] = static_cast<int>(free++);
  }
  bool in_order = true;
  for (std::size_t i = 0; i < axes.size(); ++i) in_order &= axes[i] == static_cast<int>(i);
  alias.axes = in_order ? std::vector<int>{} : axes;
  return true;
}

// True if they surely share nothing: a step of one of them, taken as the period, keeps them apart.
bool apart_when_folded(const ArrayView& a, const ArrayView& b) {
  const auto by_steps_of = [&](const ArrayView& stepping) {
    const auto axes = stepping_axes(stepping);
    return std::any_of(axes.begin(), axes.end(), [&](const Axis& axis) {
      const std::int64_t period = std::abs(axis.stride);
      if (period == 0) return false;
      const Extent l = folded(a, period), r = folded(b, period);
      std::int64_t behind = static_cast<std::int64_t>(r.lo - l.lo) % period;
      if (behind < 0) behind += period;
      return behind >= static_cast<std::int64_t>(l.hi - l.lo) &&
             behind + static_cast<std::int64_t>(r.hi - r.lo) <= period;
    });
  };
  return by_steps_of(a) || by_steps_of(b);
}

}  // namespace

Extent folded(const ArrayView& a, std::int64_t period) {
  auto lo = reinterpret_cast<std::uintptr_t>(a.data), hi = lo + static_cast<std::uintptr_t>(size_of(a.dtype));
  for (const Axis& axis : stepping_axes(a)) {
    std::int64_t step = axis.stride % period;
    if (2 * step > period) step -= period;
    if (2 * step < -period) step += period;
    const std::int64_t reach = (axis.size - 1) * step;
    (reach < 0 ? lo : hi) += static_cast<std::uintptr_t>(reach);
  }
  return {lo, hi};
}

bool share_memory(const ArrayView& a, const ArrayView& b) {
  const Extent l = extent_of(a), r = extent_of(b);
  const auto lo = std::max(l.lo, r.lo), hi = std::min(l.hi, r.hi);
  if (lo >= hi) return false;
  if (is_contiguous(a) && is_contiguous(b)) return true;
  if (apart_when_folded(a, b)) return false;
  Bytes bytes(lo, hi);
  bytes.mark(a);
  return bytes.holds_any(b);
}

bool same_view(const ArrayView& a, const ArrayView& b) {
  Alias alias{};
  return same_elements(a, b, alias) && alias.axes.empty();
}

std::vector<Alias> find_aliases(std::span<const ArrayView> arrays, const NameOf& name_of, std::string_view call) {
  std::vector<Alias> result(arrays.size());
  std::vector<Extent> extents(arrays.size());
  std::vector<std::uint32_t> order;
  for (std::uint32_t i = 0; i < arrays.size(); ++i) {
    result[i].first = i;
    extents[i] = extent_of(arrays[i]);
    if (extents[i].lo != extents[i].hi) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](auto l, auto r) { return extents[l].lo < extents[r].lo; });

  for (std::size_t begin = 0, end; begin < order.size(); begin = end) {
    // [begin, end): arrays whose extents hang together.
    const std::uintptr_t lo = extents[order[begin]].lo;
    std::uintptr_t hi = extents[order[begin]].hi;
    for (end = begin + 1; end < order.size() && extents[order[end]].lo < hi; ++end)
      hi = std::max(hi, extents[order[end]].hi);
    std::sort(order.begin() + static_cast<std::ptrdiff_t>(begin), order.begin() + static_cast<std::ptrdiff_t>(end));

    std::vector<std::uint32_t> distinct;
    std::map<std::uintptr_t, std::vector<std::uint32_t>> by_start;
    for (std::size_t k = begin; k < end; ++k) {
      const auto i = order[k];
      auto& same_start = by_start[reinterpret_cast<std::uintptr_t>(arrays[i].data)];
      const bool tied = std::any_of(same_start.begin(), same_start.end(), [&](auto first) {
        if (!same_elements(arrays[first], arrays[i], result[i])) return false;
        result[i].first = first;
        return true;
      });
      if (tied) continue;
      if (overlaps_itself(arrays[i]))
        throw Error(ErrorKind::value,
                    std::string(call) + ": array at \"" + name_of(i) +
                        "\" overlaps itself: several of its elements share memory (a broadcast or "
                        "sliding-window view?); make it a copy",
                    name_of(i));
      same_start.push_back(i);
      distinct.push_back(i);
    }
    if (distinct.size() < 2) continue;
    Bytes bytes(lo, hi);
    for (std::size_t k = 0; k < distinct.size(); ++k) {
      if (bytes.mark(arrays[distinct[k]])) continue;
      for (std::size_t j = 0; j < k; ++j)
        if (share_memory(arrays[distinct[j]], arrays[distinct[k]]))
          throw_overlap(call, name_of(distinct[j]), name_of(distinct[k]));
    }
  }
  return result;
}

}  // namespace optimisers::inline OPT_ABI
