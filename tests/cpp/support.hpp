// support.hpp: small optimisers over vectors, for the C++ tests.
#pragma once
#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "optimisers/optimiser.hpp"
#include "optimisers/registry.hpp"

namespace optimisers::test {

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) return DType::float32;
  else if constexpr (std::is_same_v<T, double>) return DType::float64;
  else if constexpr (std::is_same_v<T, Half>) return DType::float16;
  else if constexpr (std::is_same_v<T, BHalf>) return DType::bfloat16;
  else if constexpr (std::is_same_v<T, Complex<float>>) return DType::complex64;
  else return DType::complex128;
}

// A vector with the shape an ArrayView borrows.
template <class T>
struct Vector {
  std::vector<T> values;
  std::int64_t size;
  explicit Vector(std::vector<T> v) : values(std::move(v)), size(std::int64_t(values.size())) {}
  Vector(std::size_t n, T value) : Vector(std::vector<T>(n, value)) {}
  ArrayView view() {
    return {.data = reinterpret_cast<std::byte*>(values.data()),
            .shape = &size,
            .ndim = 1,
            .dtype = dtype_of<T>(),
            .present = true};
  }
};

inline NameOf named(std::vector<std::string> names) {
  return [names = std::move(names)](std::size_t i) { return names.at(i); };
}

inline RuleValue rule(const char* name, std::vector<std::pair<std::string, Value>> fields = {}) {
  RuleValue value(*find_rule(name));
  for (auto& [field, v] : fields) value.set(*value.info().field(field), v);
  return value;
}

template <class T>
LeafSpec leaf(const std::string& name, Vector<T>& x, std::vector<RuleValue> stages) {
  return {name, {x.size}, dtype_of<T>(), {std::move(stages), std::nullopt}};
}

}  // namespace optimisers::test
