// parse.hpp: rules read and written as text, as they print in Python: "OptimiserChain(ClipNorm(1.0), Adam(eta=3e-4))".
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "optimisers/program.hpp"

namespace optimisers::inline OPT_ABI {

/// A rule of the library, `OptimiserChain(...)` (or `Chain`) of rules, or, outermost, `MixedPrecision(rule)`.
/// Arguments are positional or `name=value`: numbers, pairs `(0.9, 0.999)`, True/False, "leaf"/"global", dtypes.
/// Throws Error(value or type) with the place in the text and what was expected there.
Program parse_program(std::string_view text);

/// The way back: text that parse_program makes the same program of, and Python the same rule. A rule of the program's
/// own is written likewise, but only its program can read it.
std::string to_text(const Program& program);
std::string to_text(const RuleValue& rule);

/// "eta=1e-3, beta=(0.9, 0.99)": what Optimiser::adjust takes.
std::vector<std::pair<std::string, Value>> parse_fields(std::string_view text);

}  // namespace optimisers::inline OPT_ABI
