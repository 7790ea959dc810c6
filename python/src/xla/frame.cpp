// frame.cpp: reads a call frame by XLA's C structs alone, whatever version filled them.
#include "xla/frame.hpp"

#include "optimisers/error.hpp"

namespace optimisers::python::xla {

void refuse_call(const std::string& what) {
  throw Error(ErrorKind::value, "optimisers.jax: the compiled program calls this library in a way it does not know (" +
                                    what + "); was it compiled with another version? Compile it again");
}

const XLA_FFI_Buffer& Frame::operand(std::size_t i) const {
  if (i >= operands()) refuse_call("operand " + std::to_string(i) + " of " + std::to_string(operands()));
  if (frame_.args.types[i] != XLA_FFI_ArgType_BUFFER) refuse_call("an operand that is no array");
  return *static_cast<const XLA_FFI_Buffer*>(frame_.args.args[i]);
}

const XLA_FFI_Buffer& Frame::result(std::size_t i) const {
  if (i >= results()) refuse_call("result " + std::to_string(i) + " of " + std::to_string(results()));
  if (frame_.rets.types[i] != XLA_FFI_RetType_BUFFER) refuse_call("a result that is no array");
  return *static_cast<const XLA_FFI_Buffer*>(frame_.rets.rets[i]);
}

const void* Frame::attribute(std::string_view name, XLA_FFI_AttrType type) const {
  for (std::int64_t i = 0; i < frame_.attrs.size; ++i) {
    const XLA_FFI_ByteSpan& known = *frame_.attrs.names[i];
    if (std::string_view(known.ptr, known.len) == name && frame_.attrs.types[i] == type) return frame_.attrs.attrs[i];
  }
  refuse_call("no attribute " + std::string(name));
}

std::string_view Frame::text(std::string_view name) const {
  const auto* span = static_cast<const XLA_FFI_ByteSpan*>(attribute(name, XLA_FFI_AttrType_STRING));
  return {span->ptr, span->len};
}

std::span<const std::int64_t> Frame::integers(std::string_view name) const {
  const auto* array = static_cast<const XLA_FFI_Array*>(attribute(name, XLA_FFI_AttrType_ARRAY));
  if (array->dtype != XLA_FFI_DataType_S64) refuse_call("attribute " + std::string(name) + " of another type");
  return {static_cast<const std::int64_t*>(array->data), array->size};
}

std::int64_t size_of(const XLA_FFI_Buffer& buffer) {
  std::int64_t n = 1;
  for (std::int64_t i = 0; i < buffer.rank; ++i) n *= buffer.dims[i];
  return n;
}

std::optional<DType> dtype_of(const XLA_FFI_Buffer& buffer) {
  switch (buffer.dtype) {
    case XLA_FFI_DataType_F16:
      return DType::float16;
    case XLA_FFI_DataType_BF16:
      return DType::bfloat16;
    case XLA_FFI_DataType_F32:
      return DType::float32;
    case XLA_FFI_DataType_F64:
      return DType::float64;
    case XLA_FFI_DataType_C64:
      return DType::complex64;
    case XLA_FFI_DataType_C128:
      return DType::complex128;
    default:
      return std::nullopt;
  }
}

}  // namespace optimisers::python::xla
