// refuse.hpp: how a call says no to a value.
#pragma once
#include <string>

#include "optimisers/error.hpp"

namespace optimisers::inline OPT_ABI {

// Cold: what leads to it, the making of messages, is compiled for size and out of the way.
#if defined(__GNUC__)
[[gnu::cold, gnu::noinline]]
#endif
[[noreturn]] inline void
refuse(const std::string& message, const std::string& leaf = {}) {
  throw Error(ErrorKind::value, message, leaf);
}

inline std::string quoted(const std::string& name) { return "\"" + name + "\""; }

}  // namespace optimisers::inline OPT_ABI
