// persist.cpp: states as plain Python objects and back.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <map>

#include "arrays/device_array.hpp"
#include "errors.hpp"
#include "optimisers/cuda.hpp"
#include "state/state.hpp"
#include "unlocked.hpp"

namespace optimisers::python {
namespace {

// Arrays of the right shape and dtype without memory of their own: masters are overwritten at once.
struct Blank {
  std::vector<ArrayView> views;
  std::vector<std::vector<std::int64_t>> strides;
  std::map<int, nb::object> zeros;  // by device
};
Blank blank_arrays(const std::vector<LeafArray>& leaves) {
  alignas(16) static std::byte zero[16] = {};
  Blank blank;
  for (const LeafArray& leaf : leaves) blank.strides.emplace_back(leaf.shape.size(), 0);
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const LeafArray& leaf = leaves[i];
    if (leaf.device != on_host) {
      require_cuda("unpickling a state: a leaf");
      check_device(leaf.device);
      if (!blank.zeros.contains(leaf.device))
        blank.zeros[leaf.device] = device_zeros(leaf.device, DType::complex128, {});
    }
    blank.views.push_back({leaf.device == on_host ? zero : as_device_array(blank.zeros[leaf.device].ptr())->data,
                           leaf.shape.data(), blank.strides[i].data(), 1, static_cast<std::int32_t>(leaf.shape.size()),
                           leaf.dtype, true, true, leaf.device});
  }
  return blank;
}

// What the memory holds, wherever it is.
nb::bytes bytes_of(const Memory& memory) {
  if (memory.device == on_host) return nb::bytes(memory.data, memory.bytes);
  nb::bytes bytes = nb::steal<nb::bytes>(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(memory.bytes)));
  if (!bytes.is_valid()) throw nb::python_error();
  auto* to = reinterpret_cast<std::byte*>(PyBytes_AS_STRING(bytes.ptr()));
  Unlocked unlocked;
  if (memory.bytes > 0) cuda::copy(to, on_host, memory.data, memory.device, memory.bytes);
  return bytes;
}

void take_bytes(const Memory& memory, const nb::bytes& saved) {
  if (saved.size() != memory.bytes) value_error("unpickling a state: a state array has the wrong size");
  const auto* from = static_cast<const std::byte*>(saved.data());
  if (memory.bytes == 0) return;
  if (memory.device == on_host) {
    std::memcpy(memory.data, from, memory.bytes);
    return;
  }
  Unlocked unlocked;
  cuda::copy(memory.data, memory.device, from, on_host, memory.bytes);
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

}  // namespace

std::vector<Memory> memory_of(Optimiser& core, std::uint32_t leaf) {
  std::vector<Memory> all;
  const LeafSpec& spec = core.spec(leaf);
  const auto elements = static_cast<std::size_t>(size_of(spec.shape));
  const auto add = [&](const SlotView& slot) {
    all.push_back({slot.data, elements * static_cast<std::size_t>(size_of(slot.dtype)), slot.device});
  };
  for (int stage = 0; stage < static_cast<int>(spec.program.stages.size()); ++stage)
    for (const SlotView& slot : core.slots(leaf, stage)) add(slot);
  if (auto master = core.master(leaf)) add(*master);
  return all;
}

std::span<double> clock_of(Optimiser& core, std::uint32_t leaf, int stage) {
  if (core.spec(leaf).device == on_host) return core.clock(leaf, stage);
  Unlocked unlocked;  // it waits
  return core.clock(leaf, stage);
}

std::vector<double> clocks_of(Optimiser& core, std::uint32_t leaf) {
  std::vector<double> all;
  for (int stage = 0; stage < static_cast<int>(core.spec(leaf).program.stages.size()); ++stage)
    for (double value : clock_of(core, leaf, stage)) all.push_back(value);
  return all;
}

void set_clocks(Optimiser& core, std::uint32_t leaf, std::span<const double> values) {
  const auto& stages = core.spec(leaf).program.stages;
  for (int stage = 0; stage < static_cast<int>(stages.size()); ++stage) {
    const std::size_t n = stages[static_cast<std::size_t>(stage)].info().clock.size();
    core.set_clock(leaf, stage, values.first(n));
    values = values.subspan(n);
  }
}

nb::tuple State::pickled() {
  Use use(*this);
  nb::list leaves;
  for (std::uint32_t i = 0; i < leaves_.size(); ++i) {
    nb::list shape, memory;
    for (auto n : leaves_[i].shape) shape.append(n);
    for (std::uint32_t part : core_leaves(i)) {
      for (const Memory& m : memory_of(core_, part)) memory.append(bytes_of(m));
      const std::vector<double> clocks = clocks_of(core_, part);
      memory.append(nb::bytes(clocks.data(), clocks.size() * sizeof(double)));
    }
    leaves.append(nb::make_tuple(shape, nb::str(std::string(name_of(leaves_[i].dtype)).c_str()),
                                 name_of(leaves_[i].library), core_.frozen(i), memory,
                                 static_cast<int>(leaves_[i].device)));
  }
  nb::dict user;
  for (const auto& [leaf, stages] : user_stages_) user[nb::int_(leaf)] = states_of(stages);
  return nb::make_tuple(spec_->state(), leaves, rules_, saved_layout(layout_), user);
}

std::unique_ptr<State> State::unpickled(const nb::tuple& data) {
  auto spec = TreeSpec::from_state(nb::cast<nb::tuple>(data[0]));
  std::vector<LeafArray> leaves;
  for (nb::handle item : data[1]) {
    LeafArray leaf{{},
                   saved_dtype(item[1]),
                   library_from_name(nb::cast<nb::str>(item[2]).c_str()),
                   static_cast<std::int8_t>(nb::cast<int>(item[5]))};
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
    const LeafArray like = leaves.empty() ? LeafArray{} : leaves[0];
    blank = blank_arrays({LeafArray{{layout->size}, layout->dtype, like.library, like.device}});
  }
  std::unique_ptr<State> state;
  {
    const OnStreams on(streams_of(leaves), {});
    state =
        std::make_unique<State>(spec, std::move(leaves), nb::cast<nb::list>(data[2]), blank.views, std::move(layout));
  }
  for (std::uint32_t i = 0; i < state->leaves_.size(); ++i) {
    nb::handle item = data[1][i];
    std::size_t k = 0;
    for (std::uint32_t part : state->core_leaves(i)) {
      for (const Memory& m : memory_of(state->core_, part)) take_bytes(m, nb::cast<nb::bytes>(item[4][k++]));
      const nb::bytes saved = nb::cast<nb::bytes>(item[4][k++]);
      std::vector<double> clocks(saved.size() / sizeof(double));
      if (!clocks.empty()) std::memcpy(clocks.data(), saved.data(), saved.size());
      set_clocks(state->core_, part, clocks);
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
