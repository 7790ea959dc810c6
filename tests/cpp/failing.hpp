// failing.hpp: allocations and threads that are refused on demand, in the test program alone.
#pragma once

namespace optimisers::test::failing {

// How many allocations of this thread by operator new still succeed before one fails; negative: all do.
extern thread_local int allocations_until_failure;
extern thread_local int allocations;  // of this thread so far

// The same for threads of the process, from then on all fail, until it is negative again. Only where pthread_create can
// be put in place of the system's.
extern int threads_until_failure;
extern int threads_started;  // since the program began
bool can_refuse_threads();

}  // namespace optimisers::test::failing
