// eigen.hpp: Eigen's vectors, matrices, maps and blocks as arrays. Not part of optimisers.hpp; needs Eigen 3.3 or
// newer. Elements count in Eigen's own order, column by column, however a matrix is stored, so that a row-major
// gradient fits a column-major parameter. Those stored column by column are read and written as they lie.
#pragma once
#include <Eigen/Core>

#include "optimisers/any_span.hpp"

namespace optimisers::inline OPT_ABI {

template <class A>
  requires std::is_base_of_v<Eigen::DenseBase<A>, A> &&
           (bool(A::Flags & Eigen::DirectAccessBit)) && Element<typename A::Scalar>
struct ArrayTraits<A> {
  static constexpr bool writable = bool(A::Flags & Eigen::LvalueBit);

  template <class B>
  static AnySpan span(B& a) {
    using Scalar = std::conditional_t<std::is_const_v<B> || !writable, const typename A::Scalar, typename A::Scalar>;
    Scalar* data = a.data();
    if constexpr (A::IsVectorAtCompileTime) {
      return AnySpan::strided(data, static_cast<std::size_t>(a.size()), a.innerStride());
    } else {
      const auto across = a.outerStride(), along = a.innerStride();
      return AnySpan::matrix(data, a.cols(), a.rows(), A::IsRowMajor ? along : across, A::IsRowMajor ? across : along);
    }
  }
};

}  // namespace optimisers::inline OPT_ABI
