// isa.hpp: which instruction set the kernels run on. Chosen once; OPTIMISERS_ISA=v2|v3|v4 asks for another.
#pragma once
#include <string>
#include <vector>

namespace optimisers {

struct IsaChoice {
  std::string chosen;                  // "v4"; "baseline" off x86-64
  std::vector<std::string> available;  // on this machine, lowest first
  std::string note;                    // why it is not what OPTIMISERS_ISA asked for; empty otherwise
};

// Throws Error(value) if OPTIMISERS_ISA has a value that is no level.
const IsaChoice& isa_choice();

}  // namespace optimisers
