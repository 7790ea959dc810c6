// pack.hpp: scattered arrays into one flat array and back.
#pragma once
#include <span>
#include <vector>

#include "optimisers/any_span.hpp"

namespace optimisers::inline OPT_ABI {

/// Copies the arrays one after the other into `flat`, converting to its type; a missing array becomes zeros, for
/// which `like` gives the sizes (it may be omitted when none is missing).
/// Throws Error(value): lengths do not add up (both are named), complex into real, shared memory.
void pack(const Arrays& arrays, MutableSpan flat, std::span<const AnySpan> like = {});

/// The same, into a new vector of the arrays' total length.
template <Element T>
std::vector<T> pack(const Arrays& arrays) {
  std::int64_t n = 0;
  for (const AnySpan& a : arrays.list()) n += a.size();
  std::vector<T> flat(static_cast<std::size_t>(n));
  pack(arrays, flat);
  return flat;
}

/// The way back: copies consecutive parts of `flat` into the arrays, converting to their types; a complex value into
/// a real array leaves its real part. Throws Error(value) as pack does, for an array that is const, and for arrays that
/// share memory with one another.
void unpack(AnySpan flat, const MutableArrays& arrays);

/// ‖a‖ₚ of all elements together, any real p but 0, or ±inf; added up in double in a fixed order. 0 without any
/// element. Throws Error(value) for p = 0 or NaN, and for arrays on a GPU.
double norm(const Arrays& arrays, double p = 2);

/// Consecutive views of `sizes` elements, no copy: `split(std::span(flat), sizes)[2]` is the third leaf.
/// The sizes must not add up to more than the span has.
template <class T>
std::vector<std::span<T>> split(std::span<T> flat, std::span<const std::size_t> sizes) {
  std::vector<std::span<T>> views;
  views.reserve(sizes.size());
  for (const std::size_t n : sizes) {
    views.push_back(flat.first(n));
    flat = flat.subspan(n);
  }
  return views;
}

}  // namespace optimisers::inline OPT_ABI
