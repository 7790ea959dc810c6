// bind_xla.cpp: what optimisers.jax needs to know of a rule, and the custom call it registers.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bind/bind.hpp"
#include "step/lent.hpp"
#include "xla/call.hpp"

namespace optimisers::python {
namespace {

const char* field_at(const RuleInfo& info, int offset) {
  for (const FieldInfo& f : info.fields)
    if (f.offset == offset) return f.name;
  return "";
}

// (hyperparameters that come with each call, [(slot, real, starts at the parameter, starts at this field, unless this
// one)], what the clock starts at, whether it measures a norm, whether each leaf has a
// clock of its own).
nb::tuple lent_stage(const RuleValue& rule) {
  const RuleInfo& info = rule.info();
  nb::list fields, slots, clock;
  for (const FieldInfo& f : info.fields)
    if (comes_with_call(f)) fields.append(nb::str(f.name));
  for (int i = 0; i < rule.slot_count(); ++i) {
    const SlotInfo& slot = info.slots[static_cast<std::size_t>(i)];
    slots.append(
        nb::make_tuple(slot.name, slot.real, slot.at_x, field_at(info, slot.start), field_at(info, slot.unless)));
  }
  for (int i = 0; i < info.clock_size; ++i) clock.append(info.clock_start[static_cast<std::size_t>(i)]);
  return nb::make_tuple(nb::tuple(fields), nb::tuple(slots), nb::tuple(clock), info.reducing(),
                        keeps_leafs_own_clock(info));
}

}  // namespace

void bind_xla(nb::module_& m) {
  m.def("lent_stage", &lent_stage);
  m.def("xla_step", [] { return nb::capsule(reinterpret_cast<void*>(&xla::step)); });
}

}  // namespace optimisers::python
