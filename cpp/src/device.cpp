// device.cpp: the accelerator of this process.
#include "device.hpp"

#include <atomic>

#include "refuse.hpp"

namespace optimisers::inline OPT_ABI {
namespace {
std::atomic<Accelerator*> current{nullptr};
}

void set_accelerator(Accelerator* accelerator) { current = accelerator; }
Accelerator* accelerator_or_null() { return current; }
Accelerator& accelerator() {
  if (Accelerator* a = current) return *a;
  refuse("arrays on an accelerator need the CUDA backend, which is not loaded; move the arrays to the host");
}

}  // namespace optimisers::inline OPT_ABI
