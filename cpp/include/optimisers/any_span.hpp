// any_span.hpp: borrowed elements of any supported type: what the C++ API takes for arrays.
#pragma once
#include <array>
#include <complex>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <ranges>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "optimisers/dtype.hpp"

namespace optimisers::inline OPT_ABI {

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

/// How arrays of another library become spans. A specialisation has `static AnySpan span(A&)` and
/// `static constexpr bool writable`; eigen.hpp is one.
template <class A>
struct ArrayTraits {};

namespace detail {
template <class A>
concept Adapted =
    requires(std::remove_reference_t<A>& a) { ArrayTraits<std::remove_cv_t<std::remove_reference_t<A>>>::span(a); };
template <class R>
concept ElementRange = !Adapted<R> && std::ranges::contiguous_range<R> && std::ranges::sized_range<R> &&
                       Element<std::remove_reference_t<std::ranges::range_reference_t<R>>>;
template <class R>
concept WritableRange = ElementRange<R> && !std::is_const_v<std::remove_reference_t<std::ranges::range_reference_t<R>>>;
template <class A>
concept WritableAdapted = Adapted<A> && !std::is_const_v<std::remove_reference_t<A>> &&
                          ArrayTraits<std::remove_cv_t<std::remove_reference_t<A>>>::writable;
}  // namespace detail

/// A std::span whose element type is known at run time: of a vector, an array, a std::span, one number, or what
/// ArrayTraits knows. Borrows: what it was made of must outlive it. An empty one made by `{}` stands for "no array
/// here": a missing gradient, which leaves its parameter untouched.
class AnySpan {
 public:
  AnySpan() = default;
  AnySpan(std::nullopt_t) {}
  template <detail::ElementRange R>
  AnySpan(R&& range OPT_BORROWS) : AnySpan(std::ranges::data(range), std::ranges::size(range)) {}
  template <detail::Adapted A>
  AnySpan(A&& array OPT_BORROWS) : AnySpan(ArrayTraits<std::remove_cvref_t<A>>::span(array)) {}
  template <Element T>
  AnySpan(T& number OPT_BORROWS) : AnySpan(&number, 1) {}
  template <Element T>
  AnySpan(const T& number OPT_BORROWS) : AnySpan(&number, 1) {}
  template <Element T>
  AnySpan(T* data, std::size_t size)
      : AnySpan(const_cast<std::remove_cv_t<T>*>(data), static_cast<std::int64_t>(size), dtype_of<T>,
                !std::is_const_v<T>) {}
  AnySpan(void* data, std::int64_t size, DType dtype, bool writable)
      : data_(static_cast<std::byte*>(data)),
        shape_{1, size},
        steps_{size, 1},
        dtype_(dtype),
        writable_(writable),
        present_(true) {}

  /// Every `step`-th element from `data` on: a column of a row-major matrix, a field of an array of structs.
  template <Element T>
  static AnySpan strided(T* data, std::size_t size, std::int64_t step) {
    AnySpan a(data, size);
    a.steps_[1] = step;
    return a;
  }
  /// `rows` times `columns` elements, element (r, c) at data[r * row_step + c * step], in the order of rows.
  template <Element T>
  static AnySpan matrix(T* data, std::int64_t rows, std::int64_t columns, std::int64_t row_step,
                        std::int64_t step = 1) {
    AnySpan a(data, static_cast<std::size_t>(rows * columns));
    a.shape_ = {rows, columns};
    a.steps_ = {row_step, step};
    a.is_matrix_ = true;
    return a;
  }

  std::byte* data() const { return data_; }
  std::int64_t size() const { return shape_[0] * shape_[1]; }  // elements
  DType dtype() const { return dtype_; }
  bool writable() const { return writable_; }
  bool present() const { return present_; }
  std::int8_t device() const { return device_; }  // -1: the host
  AnySpan on(int device) const {
    AnySpan there = *this;
    there.device_ = static_cast<std::int8_t>(device);
    return there;
  }
  /// One axis, or the two of a matrix, and the elements from one to the next along each.
  std::span<const std::int64_t> shape() const { return std::span(shape_).subspan(is_matrix_ ? 0 : 1); }
  std::span<const std::int64_t> steps() const { return std::span(steps_).subspan(is_matrix_ ? 0 : 1); }
  /// The elements follow one another in order.
  bool contiguous() const {
    if (size() <= 1) return true;
    if (shape_[1] == 1) return steps_[0] == 1;
    return steps_[1] == 1 && (shape_[0] == 1 || steps_[0] == shape_[1]);
  }

  AnySpan subspan(std::int64_t offset, std::int64_t size) const {
    return AnySpan(data_ == nullptr ? nullptr : data_ + offset * steps_[1] * size_of(dtype_), size, dtype_, writable_)
        .on(device_);
  }

 private:
  std::byte* data_ = nullptr;
  std::array<std::int64_t, 2> shape_{1, 0}, steps_{0, 1};
  DType dtype_ = DType::float32;
  bool writable_ = false, present_ = false, is_matrix_ = false;
  std::int8_t device_ = -1;
};

/// A span that may be written: what is const does not become one.
class MutableSpan : public AnySpan {
 public:
  template <detail::WritableRange R>
  MutableSpan(R&& range OPT_BORROWS) : AnySpan(std::forward<R>(range)) {}
  template <detail::WritableAdapted A>
  MutableSpan(A&& array OPT_BORROWS) : AnySpan(std::forward<A>(array)) {}
  template <Element T>
    requires(!std::is_const_v<T>)
  MutableSpan(T& number OPT_BORROWS) : AnySpan(number) {}
  template <Element T>
    requires(!std::is_const_v<T>)
  MutableSpan(T* data, std::size_t size) : AnySpan(data, size) {}
  /// Of a span whose type is known at run time only; calls refuse it if it is const.
  MutableSpan(const AnySpan& span) : AnySpan(span) {}
};

/// An array by the name its leaf was given at setup.
template <class Span>
struct NamedSpan {
  NamedSpan(std::string_view called, Span array) : name(called), values(array) {}
  std::string_view name;
  Span values;
};

/// The arrays of one call, borrowed: one flat array that holds all leaves one after the other; one array a leaf
/// (`{weight, bias}`, or a range of vectors); or arrays by name, in any order (`{{"b", bias}, {"w", weight}}`).
template <class Span>
class ArrayList {
 public:
  template <class A>
    requires std::convertible_to<A, Span>
  ArrayList(A&& flat OPT_BORROWS) : flat_(Span(std::forward<A>(flat))) {}
  ArrayList(std::span<const Span> list) : list_(list), is_list_(true) {}
  ArrayList(const std::vector<AnySpan>& list) : owned_(list.begin(), list.end()), list_(owned_), is_list_(true) {}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winit-list-lifetime"  // an argument's list lives as long as the call
#endif
  ArrayList(std::initializer_list<Span> list) : list_(list.begin(), list.size()), is_list_(true) {}
  ArrayList(std::initializer_list<NamedSpan<Span>> list) : named_(list.begin(), list.size()), is_list_(true) {}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
  template <std::ranges::input_range R>
    requires(!std::convertible_to<R, Span> && std::convertible_to<std::ranges::range_reference_t<R>, Span> &&
             !std::same_as<std::remove_cvref_t<R>, std::vector<AnySpan>>)
  ArrayList(R&& arrays) : is_list_(true) {
    for (auto&& a : arrays) owned_.emplace_back(a);
    list_ = owned_;
  }
  ArrayList(const ArrayList&) = delete;  // an argument, not a value: its list may be a temporary
  ArrayList& operator=(const ArrayList&) = delete;

  std::span<const Span> list() const { return is_list_ ? list_ : std::span<const Span>(&flat_.value(), 1); }
  std::span<const NamedSpan<Span>> named() const { return named_; }  // empty: they go by their places

 private:
  std::optional<Span> flat_;
  std::vector<Span> owned_;
  std::span<const Span> list_;
  std::span<const NamedSpan<Span>> named_;
  bool is_list_ = false;
};
using Arrays = ArrayList<AnySpan>;
/// Those that a call writes: const arrays do not compile.
using MutableArrays = ArrayList<MutableSpan>;

}  // namespace optimisers::inline OPT_ABI
