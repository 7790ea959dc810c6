// result.hpp: what calls that do not throw return: a value, or why there is none.
#pragma once
#include <optional>
#include <string>
#include <utility>

#include "optimisers/error.hpp"

namespace optimisers::inline OPT_ABI {

/// The reason of a failed call: what Error holds, as a value. Nothing was changed by the call.
struct Failure {
  ErrorKind kind = ErrorKind::value;
  std::string message;
  std::string leaf;  // the name of the leaf it is about, if it is about one
};

/// Holds a value or a Failure; converts to true when there is a value.
template <class T = void>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  Result(Failure failure) : failure_(std::move(failure)) {}
  explicit operator bool() const noexcept { return value_.has_value(); }
  bool has_value() const noexcept { return value_.has_value(); }
  T& operator*() { return *value_; }
  const T& operator*() const { return *value_; }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  T& value() { return value_.value(); }  // throws std::bad_optional_access if there is none
  const T& value() const { return value_.value(); }
  const Failure& error() const noexcept { return failure_; }  // meaningful when there is no value

 private:
  std::optional<T> value_;
  Failure failure_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Failure failure) : failure_(std::move(failure)), ok_(false) {}
  explicit operator bool() const noexcept { return ok_; }
  bool has_value() const noexcept { return ok_; }
  const Failure& error() const noexcept { return failure_; }

 private:
  Failure failure_;
  bool ok_ = true;
};

}  // namespace optimisers::inline OPT_ABI
