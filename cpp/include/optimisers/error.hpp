// error.hpp: the one exception type, with the kind of fault, so that each language maps it to its own classes.
#pragma once
#include <stdexcept>
#include <string>

namespace optimisers {

enum class ErrorKind {
  value,       // right kind of object, wrong value: range, shape, structure, overlap, length, unknown field
  type,        // wrong kind of object
  non_finite,  // a norm that must be finite is not
  busy,        // the state is in use by the same thread further up the stack
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const noexcept { return kind_; }

 private:
  ErrorKind kind_;
};

}  // namespace optimisers
