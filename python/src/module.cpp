// module.cpp: the extension module optimisers._core, and what it says about the machine.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdlib>

#include "array.hpp"
#include "bind.hpp"
#include "errors.hpp"
#include "forks.hpp"
#include "optimisers/config.hpp"
#include "optimisers/isa.hpp"
#include "optimisers/threads.hpp"

namespace optimisers::python {

void bind_machine(nb::module_& m) {
  m.attr("version") = version;
  m.def("isa", [] {
    const IsaChoice& isa = isa_choice();
    return nb::make_tuple(isa.chosen, isa.available, isa.note);
  });
  m.def("set_num_threads", &set_num_threads, nb::arg("threads"));
  m.def("get_num_threads", &get_num_threads);
}

}  // namespace optimisers::python

NB_MODULE(_core, m) {
  using namespace optimisers::python;
  // At exit, states may still be held by module globals that a registered class keeps alive: no fault, and no reason
  // to alarm a user. Set the variable when looking for leaks.
  nb::set_leak_warnings(std::getenv("OPTIMISERS_LEAK_WARNINGS") != nullptr);
  import_numpy_api();
  bind_errors(m);
  watch_forks();
  optimisers::isa_choice();  // an unknown OPTIMISERS_ISA is an error now, not in the first update
  bind_rules(m);
  bind_state(m);
  bind_tree(m);
  bind_walks(m);
  bind_devices(m);
  bind_machine(m);
}
