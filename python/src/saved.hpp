// saved.hpp: data from outside, such as a pickle's: looked at before it is used. What does not hold is an error that
// names it.
#pragma once
#include <nanobind/nanobind.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace optimisers::python::saved {

namespace nb = nanobind;

[[noreturn]] void refuse(const std::string& what);  // "unpickling a state: ..."

// Each throws where the object is of another type; `what` it is goes into the message. Lists and tuples come as tuples
// that nobody changes meanwhile.
nb::tuple items(nb::handle object, const char* what);
nb::tuple items(nb::handle object, std::size_t count, const char* what);
std::int64_t integer(nb::handle object, std::int64_t lowest, std::int64_t highest, const char* what);
bool boolean(nb::handle object, const char* what);
std::string text(nb::handle object, const char* what);
std::string_view bytes(nb::handle object, const char* what);  // as long as the object lives

// The numbers that a bytes object is made of.
template <class T>
std::vector<T> numbers(nb::handle object, const char* what) {
  const std::string_view all = bytes(object, what);
  if (all.size() % sizeof(T) != 0)
    refuse(std::string(what) + " have " + std::to_string(all.size()) + " bytes, expected a multiple of " +
           std::to_string(sizeof(T)));
  std::vector<T> values(all.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), all.data(), all.size());
  return values;
}
template <class T>
std::vector<T> numbers(nb::handle object, std::size_t count, const char* what) {
  std::vector<T> values = numbers<T>(object, what);
  if (values.size() != count)
    refuse(std::string(what) + " are " + std::to_string(values.size()) + ", expected " + std::to_string(count));
  return values;
}
template <class T>
nb::bytes bytes_from(const std::vector<T>& values) {
  return nb::bytes(values.data(), values.size() * sizeof(T));
}

}  // namespace optimisers::python::saved
