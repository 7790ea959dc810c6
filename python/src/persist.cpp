// persist.cpp: states as plain Python objects and back.
#include <cstring>

#include "errors.hpp"
#include "state.hpp"

namespace optimisers::python {
namespace {

std::size_t bytes_of(const LeafSpec& spec, const SlotView& slot) {
  std::size_t n = static_cast<std::size_t>(size_of(slot.dtype));
  for (auto s : spec.shape) n *= static_cast<std::size_t>(s);
  return n;
}

// All memory of a leaf's state, in a fixed order.
struct Memory {
  std::byte* data;
  std::size_t bytes;
};
std::vector<Memory> memory_of(Optimiser& core, std::uint32_t leaf) {
  std::vector<Memory> all;
  const LeafSpec& spec = core.spec(leaf);
  for (int stage = 0; stage < static_cast<int>(spec.program.stages.size()); ++stage) {
    for (const SlotView& slot : core.slots(leaf, stage)) all.push_back({slot.data, bytes_of(spec, slot)});
    const std::span<double> clock = core.clock(leaf, stage);
    all.push_back({reinterpret_cast<std::byte*>(clock.data()), clock.size_bytes()});
  }
  if (auto master = core.master(leaf)) all.push_back({master->data, bytes_of(spec, *master)});
  return all;
}

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

}  // namespace

nb::tuple State::pickled() {
  Use use(*this);
  nb::list leaves;
  for (std::uint32_t i = 0; i < leaves_.size(); ++i) {
    nb::list shape, memory;
    for (auto n : leaves_[i].shape) shape.append(n);
    for (const Memory& m : memory_of(core_, i)) memory.append(nb::bytes(m.data, m.bytes));
    leaves.append(nb::make_tuple(shape, nb::str(std::string(name_of(leaves_[i].dtype)).c_str()),
                                 static_cast<int>(leaves_[i].library), core_.frozen(i), memory));
  }
  return nb::make_tuple(spec_->state(), leaves, rules_, saved_layout(layout_));
}

std::unique_ptr<State> State::unpickled(const nb::tuple& data) {
  auto spec = TreeSpec::from_state(nb::cast<nb::tuple>(data[0]));
  std::vector<LeafArray> leaves;
  for (nb::handle item : data[1]) {
    LeafArray leaf{
        {}, *dtype_from_name(nb::cast<nb::str>(item[1]).c_str()), static_cast<Library>(nb::cast<int>(item[2]))};
    for (nb::handle n : item[0]) leaf.shape.push_back(nb::cast<std::int64_t>(n));
    leaves.push_back(std::move(leaf));
  }
  std::optional<Layout> layout;
  Blank blank = blank_arrays(leaves);
  if (!data[3].is_none()) {
    Flattened model{spec, {}, blank.views};
    layout = layout_of(model, *dtype_from_name(nb::cast<nb::str>(data[3][0]).c_str()));
    blank = blank_vector(*layout);
  }
  auto state =
      std::make_unique<State>(spec, std::move(leaves), nb::cast<nb::list>(data[2]), blank.views, std::move(layout));
  for (std::uint32_t i = 0; i < state->leaves_.size(); ++i) {
    nb::handle item = data[1][i];
    const auto memory = memory_of(state->core_, i);
    for (std::size_t k = 0; k < memory.size(); ++k) {
      nb::bytes saved = nb::cast<nb::bytes>(item[4][k]);
      if (saved.size() != memory[k].bytes) value_error("unpickling a state: a state array has the wrong size");
      if (memory[k].bytes > 0) std::memcpy(memory[k].data, saved.data(), memory[k].bytes);
    }
    if (nb::cast<bool>(item[3])) state->core_.set_frozen(std::span(&i, 1), true);
  }
  return state;
}

}  // namespace optimisers::python
