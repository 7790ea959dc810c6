// refuse.hpp: how a call says no to a value.
#pragma once
#include "optimisers/error.hpp"

namespace optimisers {

[[noreturn]] inline void refuse(const std::string& message, const std::string& leaf = {}) {
  throw Error(ErrorKind::value, message, leaf);
}

}  // namespace optimisers
