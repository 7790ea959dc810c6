// any_span.hpp: borrowed contiguous elements of any supported type: what the C++ API takes for arrays.
#pragma once
#include <complex>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <ranges>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "optimisers/dtype.hpp"

namespace optimisers {

namespace detail {
template <class T>
constexpr std::optional<DType> element_dtype() {
  if constexpr (std::is_same_v<T, float>) return DType::float32;
  else if constexpr (std::is_same_v<T, double>) return DType::float64;
  else if constexpr (std::is_same_v<T, Half>) return DType::float16;
  else if constexpr (std::is_same_v<T, BHalf>) return DType::bfloat16;
  else if constexpr (std::is_same_v<T, Complex<float>> || std::is_same_v<T, std::complex<float>>)
    return DType::complex64;
  else if constexpr (std::is_same_v<T, Complex<double>> || std::is_same_v<T, std::complex<double>>)
    return DType::complex128;
  else return std::nullopt;
}
}  // namespace detail

/// Element types of arrays: float, double, the 16-bit patterns Half and BHalf, and complex numbers of float and double.
template <class T>
concept Element = detail::element_dtype<std::remove_cv_t<T>>().has_value();

/// Its DType: `dtype_of<float> == DType::float32`.
template <Element T>
inline constexpr DType dtype_of = *detail::element_dtype<std::remove_cv_t<T>>();

namespace detail {
template <class R>
concept ElementRange = std::ranges::contiguous_range<R> && std::ranges::sized_range<R> &&
                       Element<std::remove_reference_t<std::ranges::range_reference_t<R>>>;
}

/// A std::span whose element type is known at run time. Borrows; an empty one made by `{}` stands for "no array here":
/// a missing gradient, which leaves its parameter untouched.
class AnySpan {
 public:
  AnySpan() = default;
  AnySpan(std::nullopt_t) {}
  template <detail::ElementRange R>
  AnySpan(R&& range) : AnySpan(std::ranges::data(range), std::ranges::size(range)) {}
  template <Element T>
  AnySpan(T* data, std::size_t size)
      : AnySpan(const_cast<std::remove_cv_t<T>*>(data), static_cast<std::int64_t>(size), dtype_of<T>,
                !std::is_const_v<T>) {}
  AnySpan(void* data, std::int64_t size, DType dtype, bool writable)
      : data_(static_cast<std::byte*>(data)), size_(size), dtype_(dtype), writable_(writable), present_(true) {}

  std::byte* data() const { return data_; }
  std::int64_t size() const { return size_; }  // elements
  DType dtype() const { return dtype_; }
  bool writable() const { return writable_; }
  bool present() const { return present_; }
  std::int8_t device() const { return device_; }  // -1: the host
  AnySpan on(int device) const {
    AnySpan there = *this;
    there.device_ = static_cast<std::int8_t>(device);
    return there;
  }

  AnySpan subspan(std::int64_t offset, std::int64_t size) const {
    return AnySpan(data_ == nullptr ? nullptr : data_ + offset * size_of(dtype_), size, dtype_, writable_).on(device_);
  }

 private:
  std::byte* data_ = nullptr;
  std::int64_t size_ = 0;
  DType dtype_ = DType::float32;
  bool writable_ = false, present_ = false;
  std::int8_t device_ = -1;
};

/// The arrays of one call, borrowed: one flat array that holds all leaves one after the other, or one array a leaf.
/// Made from a vector or span of numbers (`x`), from a list (`{weight, bias}`), or from a range of vectors.
class Arrays {
 public:
  Arrays(AnySpan flat) : flat_(flat) {}
  template <detail::ElementRange R>
  Arrays(R&& flat) : flat_(flat) {}
  Arrays(std::span<const AnySpan> list) : list_(list), is_list_(true) {}
  Arrays(const std::vector<AnySpan>& list) : Arrays(std::span<const AnySpan>(list)) {}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winit-list-lifetime"  // an argument's list lives as long as the call
#endif
  Arrays(std::initializer_list<AnySpan> list) : list_(list.begin(), list.size()), is_list_(true) {}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
  template <std::ranges::input_range R>
    requires detail::ElementRange<std::ranges::range_reference_t<R>>
  Arrays(R&& arrays) : is_list_(true) {
    for (auto&& a : arrays) owned_.emplace_back(a);
    list_ = owned_;
  }
  Arrays(const Arrays&) = delete;  // an argument, not a value: its list may be a temporary
  Arrays& operator=(const Arrays&) = delete;

  std::span<const AnySpan> list() const { return is_list_ ? list_ : std::span<const AnySpan>(&flat_, 1); }

 private:
  AnySpan flat_;
  std::span<const AnySpan> list_;
  std::vector<AnySpan> owned_;
  bool is_list_ = false;
};

}  // namespace optimisers
