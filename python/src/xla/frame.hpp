// frame.hpp: what XLA hands to a custom call: operands, results and attributes, read and checked.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "optimisers/dtype.hpp"
#include "xla/ffi/api/c_api.h"

namespace optimisers::python::xla {

// Throws Error(value) for a call that is not as this library makes them.
class Frame {
 public:
  explicit Frame(const XLA_FFI_CallFrame& frame) : frame_(frame) {}

  std::size_t operands() const { return static_cast<std::size_t>(frame_.args.size); }
  std::size_t results() const { return static_cast<std::size_t>(frame_.rets.size); }
  const XLA_FFI_Buffer& operand(std::size_t i) const;
  const XLA_FFI_Buffer& result(std::size_t i) const;
  std::string_view text(std::string_view attribute) const;
  std::span<const std::int64_t> integers(std::string_view attribute) const;

 private:
  const void* attribute(std::string_view name, XLA_FFI_AttrType type) const;
  const XLA_FFI_CallFrame& frame_;
};

std::int64_t size_of(const XLA_FFI_Buffer& buffer);  // elements
std::optional<DType> dtype_of(const XLA_FFI_Buffer& buffer);

[[noreturn]] void refuse_call(const std::string& what);

}  // namespace optimisers::python::xla
