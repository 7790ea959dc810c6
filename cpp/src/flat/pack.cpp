// pack.cpp: scattered spans into one flat span and back, for C++ programs.
#include "optimisers/pack.hpp"

#include <algorithm>
#include <string>

#include "flat/flat_parts.hpp"
#include "optimisers/array.hpp"
#include "optimisers/sweeps.hpp"
#include "refuse.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

// The view borrows the span's axes.
ArrayView view_of(const AnySpan& a) {
  return {.data = a.data(),
          .shape = a.shape().data(),
          .strides = a.steps().data(),
          .stride_unit = size_of(a.dtype()),
          .ndim = std::int32_t(a.shape().size()),
          .dtype = a.dtype(),
          .present = a.present()};
}

Extent extent_of(const AnySpan& a) { return extent_of(view_of(a)); }

void check(const AnySpan& from, const AnySpan& to, const char* call) {
  if (!to.writable()) refuse(std::string(call) + ": the array written to is const");
  if (from.device() != on_host || to.device() != on_host)
    refuse(std::string(call) + ": arrays on a GPU are copied by cuda::transfer");
  const Extent a = extent_of(from), b = extent_of(to);
  if (a.lo < b.hi && b.lo < a.hi && a.lo != a.hi && b.lo != b.hi)
    refuse(std::string(call) + ": the flat array shares memory with an array that is packed with it");
}

void check_length(const char* call, std::int64_t arrays, std::int64_t flat) {
  if (arrays != flat)
    refuse(std::string(call) + ": the arrays have " + std::to_string(arrays) +
           " elements together, the flat array has " + std::to_string(flat));
}

// Threads write them side by side.
void check_apart(const MutableArrays& arrays) {
  std::vector<Extent> written;
  for (const AnySpan& a : arrays.list())
    if (a.size() > 0) written.push_back(extent_of(a));
  std::ranges::sort(written, {}, &Extent::lo);
  for (std::size_t i = 1; i < written.size(); ++i)
    if (written[i].lo < written[i - 1].hi) refuse("unpack: two of the arrays share memory");
}

// Each array's place in the flat one.
template <class Span>
std::vector<FlatPart> parts_of(const ArrayList<Span>& arrays, const std::vector<std::int64_t>& sizes) {
  const auto list = arrays.list();
  std::vector<FlatPart> parts(list.size());
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < list.size(); begin += sizes[i++])
    parts[i] = {.array = view_of(list[i]), .begin = begin, .size = sizes[i]};
  return parts;
}

}  // namespace

void pack(const Arrays& arrays, MutableSpan flat, std::span<const AnySpan> like) {
  const auto list = arrays.list();
  std::vector<std::int64_t> sizes;
  std::int64_t total = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (!list[i].present() && i >= like.size())
      refuse("pack: array " + std::to_string(i) + " is missing; give its size through `like`");
    sizes.push_back(list[i].present() ? list[i].size() : like[i].size());
    total += sizes.back();
    if (is_complex_dtype(list[i].dtype()) && !is_complex_dtype(flat.dtype()))
      refuse("pack: array " + std::to_string(i) + " is complex, the flat array is real");
    check(list[i], flat, "pack");
  }
  if (!flat.contiguous()) refuse("pack: the flat array must lie in one piece");
  check_length("pack", total, flat.size());
  pack_parts(parts_of(arrays, sizes), flat.data(), flat.dtype());
}

void unpack(AnySpan flat, const MutableArrays& arrays) {
  std::vector<std::int64_t> sizes;
  std::int64_t total = 0;
  for (const AnySpan& a : arrays.list()) {
    sizes.push_back(a.size());
    total += a.size();
    if (a.present()) check(flat, a, "unpack");
  }
  if (!flat.contiguous()) refuse("unpack: the flat array must lie in one piece");
  check_length("unpack", total, flat.size());
  check_apart(arrays);
  unpack_parts(flat.data(), flat.dtype(), parts_of(arrays, sizes));
}

double norm(const Arrays& arrays, double p) {
  std::vector<ArrayView> views;
  for (const AnySpan& a : arrays.list()) {
    if (a.device() != on_host) refuse("norm: arrays on a GPU are measured by cuda::norm");
    if (a.present()) views.push_back(view_of(a));
  }
  return norm(views, p);
}

}  // namespace optimisers::inline OPT_ABI
