// rename.hpp: leaves of a file by the names they have here.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "optimisers/config.hpp"

namespace optimisers::inline OPT_ABI::files {

// The path with its beginning replaced, if the pattern fits it, component by component: `*` is one, `**` any number,
// the least that fits. Throws Error(value) for a replacement with more of them than the pattern.
std::optional<std::string> renamed(std::string_view path, std::string_view pattern, std::string_view replacement);

}  // namespace optimisers::inline OPT_ABI::files
