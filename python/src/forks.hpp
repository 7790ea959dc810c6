// forks.hpp: how often this process has been forked off another since the module was loaded.
#pragma once

namespace optimisers::python {

// Called once, when the module is loaded.
void watch_forks();
unsigned fork_count();

}  // namespace optimisers::python
