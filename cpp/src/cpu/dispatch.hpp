// dispatch.hpp: from a dtype known at run time to an element type: f(a value of that type).
#pragma once
#include <cstdint>

#include "optimisers/dtype.hpp"

namespace optimisers::inline OPT_ABI::cpu {

// Compute types.
template <class F>
OPT_FN void with_compute(DType d, F&& f) {
  switch (d) {
    case DType::float32:
      return f(float{});
    case DType::float64:
      return f(double{});
    case DType::complex64:
      return f(Complex<float>{});
    default:
      return f(Complex<double>{});
  }
}

// What a leaf may be.
template <class F>
OPT_FN void with_trainable(DType d, F&& f) {
  switch (d) {
    case DType::float16:
      return f(Half{});
    case DType::bfloat16:
      return f(BHalf{});
    default:
      return with_compute(d, f);
  }
}

// What a gradient may be.
template <class F>
OPT_FN void with_dtype(DType d, F&& f) {
  switch (d) {
    case DType::boolean:
      return f(bool{});
    case DType::int8:
      return f(std::int8_t{});
    case DType::int16:
      return f(std::int16_t{});
    case DType::int32:
      return f(std::int32_t{});
    case DType::int64:
      return f(std::int64_t{});
    case DType::uint8:
      return f(std::uint8_t{});
    case DType::uint16:
      return f(std::uint16_t{});
    case DType::uint32:
      return f(std::uint32_t{});
    case DType::uint64:
      return f(std::uint64_t{});
    default:
      return with_trainable(d, f);
  }
}

}  // namespace optimisers::inline OPT_ABI::cpu
