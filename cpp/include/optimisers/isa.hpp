// isa.hpp: which instruction set the kernels run on. Chosen once; OPTIMISERS_ISA=v2|v3|v4 asks for another.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "optimisers/config.hpp"

namespace optimisers::inline OPT_ABI {

struct IsaChoice {
  std::string chosen;                  // "v4"; "baseline" off x86-64
  std::vector<std::string> available;  // on this machine, lowest first
  std::string note;                    // why it is not what OPTIMISERS_ISA asked for; empty otherwise
};

// Throws Error(value) if OPTIMISERS_ISA or OPTIMISERS_PREFETCH has a value they cannot have.
const IsaChoice& isa_choice();

// How many bytes ahead the loops over elements ask for memory; 0: that is left to the processor. Set with the choice,
// by what processor this is; OPTIMISERS_PREFETCH=0..65536 sets another. Results are the same.
extern std::uintptr_t fetch_distance;

}  // namespace optimisers::inline OPT_ABI
