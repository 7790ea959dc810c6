// pack.cpp: copies between scattered arrays and a flat one, with conversion where the types differ.
#include "optimisers/pack.hpp"

#include <algorithm>
#include <cstring>
#include <string>

#include "cpu/convert.hpp"
#include "cpu/dispatch.hpp"
#include "optimisers/array.hpp"
#include "refuse.hpp"

namespace optimisers {
namespace {

// By way of complex double, which holds every element exactly.
template <class From>
Complex<double> widen(From a) {
  if constexpr (is_complex<From>) return {double(a.re), double(a.im)};
  else return {cpu::convert<double>(a), 0};
}
template <class To>
To narrow(Complex<double> a) {
  if constexpr (is_complex<To>) return {real_t<To>(a.re), real_t<To>(a.im)};
  else return cpu::convert<To>(a.re);
}

// Any alignment is allowed.
void copy(const AnySpan& from, const AnySpan& to) {
  constexpr std::int64_t block = 256;
  if (from.size() == 0) return;
  if (from.dtype() == to.dtype()) {
    std::memcpy(to.data(), from.data(), std::size_t(from.size()) * std::size_t(size_of(to.dtype())));
    return;
  }
  Complex<double> wide[block];
  for (std::int64_t b = 0; b < from.size(); b += block) {
    const std::int64_t n = std::min(block, from.size() - b);
    cpu::with_trainable(from.dtype(), [&](auto a) {
      for (std::int64_t i = 0; i < n; ++i) {
        std::memcpy(&a, from.data() + (b + i) * std::int64_t(sizeof a), sizeof a);
        wide[i] = widen(a);
      }
    });
    cpu::with_trainable(to.dtype(), [&](auto a) {
      for (std::int64_t i = 0; i < n; ++i) {
        a = narrow<decltype(a)>(wide[i]);
        std::memcpy(to.data() + (b + i) * std::int64_t(sizeof a), &a, sizeof a);
      }
    });
  }
}

ArrayView bytes_of(const AnySpan& a, std::int64_t& size) {
  size = a.size();
  return {.data = a.data(), .shape = &size, .ndim = 1, .dtype = a.dtype(), .present = true};
}

void check(const AnySpan& from, const AnySpan& to, const char* call) {
  if (!to.writable()) refuse(std::string(call) + ": the array written to is const");
  if (from.device() != on_host || to.device() != on_host)
    refuse(std::string(call) + ": arrays on a GPU are copied by cuda::transfer");
  std::int64_t n = 0, m = 0;
  const Extent a = extent_of(bytes_of(from, n)), b = extent_of(bytes_of(to, m));
  if (a.lo < b.hi && b.lo < a.hi && a.lo != a.hi && b.lo != b.hi)
    refuse(std::string(call) + ": the flat array shares memory with an array that is packed with it");
}

void check_length(const char* call, std::int64_t arrays, std::int64_t flat) {
  if (arrays != flat)
    refuse(std::string(call) + ": the arrays have " + std::to_string(arrays) +
           " elements together, the flat array has " + std::to_string(flat));
}

}  // namespace

void pack(const Arrays& arrays, AnySpan flat, std::span<const AnySpan> like) {
  const auto list = arrays.list();
  const auto size_of_array = [&](std::size_t i) {
    if (list[i].present()) return list[i].size();
    if (i >= like.size()) refuse("pack: array " + std::to_string(i) + " is missing; give its size through `like`");
    return like[i].size();
  };
  std::int64_t total = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    total += size_of_array(i);
    if (is_complex_dtype(list[i].dtype()) && !is_complex_dtype(flat.dtype()))
      refuse("pack: array " + std::to_string(i) + " is complex, the flat array is real");
    check(list[i], flat, "pack");
  }
  check_length("pack", total, flat.size());
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const AnySpan part = flat.subspan(offset, size_of_array(i));
    if (list[i].present()) copy(list[i], part);
    else if (part.size() > 0)
      std::memset(part.data(), 0, std::size_t(part.size()) * std::size_t(size_of(part.dtype())));
    offset += part.size();
  }
}

void unpack(AnySpan flat, const Arrays& arrays) {
  std::int64_t total = 0;
  for (const AnySpan& a : arrays.list()) {
    total += a.size();
    if (a.present()) check(flat, a, "unpack");
  }
  check_length("unpack", total, flat.size());
  std::int64_t offset = 0;
  for (const AnySpan& a : arrays.list()) {
    copy(flat.subspan(offset, a.size()), a);
    offset += a.size();
  }
}

}  // namespace optimisers
