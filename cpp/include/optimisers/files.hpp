// files.hpp: how states are loaded from files, and what came of it. The format: docs/saving.md.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "optimisers/config.hpp"

namespace optimisers::inline OPT_ABI {

/// Ways around the strictness of load: without them every leaf must be in the file, by its name and with the same
/// shape, dtype and rules, and every leaf of the file must be here.
struct LoadOptions {
  /// From the beginnings of names in the file to those here: {"old", "new"}, {"layers.*.attention", "layers.*.mixer"},
  /// where `*` stands for one component and `**` for any number; {"module", ""} takes a prefix away, {"", "module"}
  /// sets one before. The first that fits counts; one that fits nothing is an error.
  std::vector<std::pair<std::string, std::string>> rename = {};
  /// Leaves that are not in the file stay as they are, leaves of the file that are not here are left out.
  bool partial = false;
  /// Leaves may have another real (or another complex) dtype than in the file: their state is converted.
  bool cast = false;
};

/// What `partial` has let pass.
struct LoadResult {
  std::vector<std::string> fresh;   // leaves that are not in the file
  std::vector<std::string> unused;  // leaves of the file that are not here, by their names there
};

}  // namespace optimisers::inline OPT_ABI
