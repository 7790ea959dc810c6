// persist.cpp: states as plain Python objects and back.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "errors.hpp"
#include "state.hpp"

namespace optimisers::python {
namespace {

// Arrays of the right shape and dtype without memory of their own: masters are overwritten at once.
struct Blank {
  std::vector<ArrayView> views;
  std::vector<std::vector<std::int64_t>> strides;
};
Blank blank_arrays(const std::vector<LeafArray>& leaves) {
  alignas(16) static std::byte zero[16] = {};
  Blank blank;
  for (const LeafArray& leaf : leaves) blank.strides.emplace_back(leaf.shape.size(), 0);
  for (std::size_t i = 0; i < leaves.size(); ++i)
    blank.views.push_back({zero, leaves[i].shape.data(), blank.strides[i].data(), 1,
                           static_cast<std::int32_t>(leaves[i].shape.size()), leaves[i].dtype, true, true});
  return blank;
}

Blank blank_vector(const Layout& layout) {
  return blank_arrays({LeafArray{{layout.size}, layout.dtype, Library::numpy}});
}

nb::object saved_layout(const std::optional<Layout>& layout) {
  if (!layout) return nb::none();
  nb::list offsets;
  for (auto offset : layout->offsets) offsets.append(offset);
  return nb::make_tuple(nb::str(std::string(name_of(layout->dtype)).c_str()), layout->size, offsets);
}

DType saved_dtype(nb::handle name) {
  const auto text = nb::cast<std::string>(name);
  const auto dtype = dtype_from_name(text);
  if (!dtype) value_error("unpickling a state: \"" + text + "\" is no dtype that this version knows");
  return *dtype;
}

nb::list states_of(const UserStages& stages) {
  nb::list states;
  for (const nb::object& state : stages.states) states.append(state);
  return states;
}

std::vector<Memory> all_memory(State& state, std::uint32_t leaf) {
  std::vector<Memory> all;
  for (std::uint32_t core_leaf : state.core_leaves(leaf))
    for (const Memory& m : memory_of(state.core(), core_leaf)) all.push_back(m);
  return all;
}

}  // namespace

std::vector<Memory> memory_of(Optimiser& core, std::uint32_t leaf) {
  std::vector<Memory> all;
  const LeafSpec& spec = core.spec(leaf);
  std::size_t elements = 1;
  for (auto n : spec.shape) elements *= static_cast<std::size_t>(n);
  for (int stage = 0; stage < static_cast<int>(spec.program.stages.size()); ++stage) {
    for (const SlotView& slot : core.slots(leaf, stage))
      all.push_back({slot.data, elements * static_cast<std::size_t>(size_of(slot.dtype))});
    const std::span<double> clock = core.clock(leaf, stage);
    all.push_back({reinterpret_cast<std::byte*>(clock.data()), clock.size_bytes()});
  }
  if (auto master = core.master(leaf))
    all.push_back({master->data, elements * static_cast<std::size_t>(size_of(master->dtype))});
  return all;
}

nb::tuple State::pickled() {
  Use use(*this);
  nb::list leaves;
  for (std::uint32_t i = 0; i < leaves_.size(); ++i) {
    nb::list shape, memory;
    for (auto n : leaves_[i].shape) shape.append(n);
    for (const Memory& m : all_memory(*this, i)) memory.append(nb::bytes(m.data, m.bytes));
    leaves.append(nb::make_tuple(shape, nb::str(std::string(name_of(leaves_[i].dtype)).c_str()),
                                 static_cast<int>(leaves_[i].library), core_.frozen(i), memory));
  }
  nb::dict user;
  for (const auto& [leaf, stages] : user_stages_) user[nb::int_(leaf)] = states_of(stages);
  return nb::make_tuple(spec_->state(), leaves, rules_, saved_layout(layout_), user);
}

std::unique_ptr<State> State::unpickled(const nb::tuple& data) {
  auto spec = TreeSpec::from_state(nb::cast<nb::tuple>(data[0]));
  std::vector<LeafArray> leaves;
  for (nb::handle item : data[1]) {
    LeafArray leaf{{}, saved_dtype(item[1]), static_cast<Library>(nb::cast<int>(item[2]))};
    for (nb::handle n : item[0]) leaf.shape.push_back(nb::cast<std::int64_t>(n));
    leaves.push_back(std::move(leaf));
  }
  std::optional<Layout> layout;
  Blank blank = blank_arrays(leaves);
  if (!data[3].is_none()) {
    Flattened model;
    model.spec = spec;
    model.views = blank.views;
    layout = layout_of(model, saved_dtype(data[3][0]));
    layout->size = nb::cast<std::int64_t>(data[3][1]);  // the vector may have parts that no leaf covers
    layout->offsets = nb::cast<std::vector<std::int64_t>>(data[3][2]);
    blank = blank_vector(*layout);
  }
  auto state =
      std::make_unique<State>(spec, std::move(leaves), nb::cast<nb::list>(data[2]), blank.views, std::move(layout));
  for (std::uint32_t i = 0; i < state->leaves_.size(); ++i) {
    nb::handle item = data[1][i];
    const auto memory = all_memory(*state, i);
    for (std::size_t k = 0; k < memory.size(); ++k) {
      nb::bytes saved = nb::cast<nb::bytes>(item[4][k]);
      if (saved.size() != memory[k].bytes) value_error("unpickling a state: a state array has the wrong size");
      if (memory[k].bytes > 0) std::memcpy(memory[k].data, saved.data(), memory[k].bytes);
    }
    if (nb::cast<bool>(item[3])) state->core_.set_frozen(state->core_leaves(i), true);
  }
  for (auto& [leaf, stages] : state->user_stages_) {
    stages.states.clear();
    for (nb::handle user_state : data[4][nb::int_(leaf)]) stages.states.push_back(nb::borrow(user_state));
  }
  return state;
}

}  // namespace optimisers::python
