// restore.cpp: states from plain Python objects. These come from outside: everything is looked at before it is used,
// and before memory is taken for what it promises.
#include <cstring>
#include <map>

#include "arrays/device_array.hpp"
#include "errors.hpp"
#include "optimisers/cuda.hpp"
#include "saved.hpp"
#include "state/state.hpp"
#include "unlocked.hpp"

namespace optimisers::python {
namespace {

constexpr std::int64_t most_bytes = std::int64_t(1) << 58;  // of an array

DType saved_dtype(nb::handle name) {
  const std::string text = saved::text(name, "a dtype");
  const auto dtype = dtype_from_name(text);
  if (!dtype || !is_trainable(*dtype)) saved::refuse("\"" + text + "\" is no dtype of leaves that this version knows");
  return *dtype;
}

// A leaf without its shape, and whether it is frozen.
std::pair<LeafArray, bool> saved_kind(nb::handle object) {
  const nb::tuple parts = saved::items(object, 4, "a kind of leaf");
  const std::string name = saved::text(parts[1], "an array library");
  const auto library = library_from_name(name);
  if (!library) saved::refuse("\"" + name + "\" is no array library that this version knows");
  const auto device = static_cast<std::int8_t>(saved::integer(parts[3], on_host, INT8_MAX, "a device"));
  return {{{}, saved_dtype(parts[0]), *library, device}, saved::boolean(parts[2], "whether a leaf is frozen")};
}

// Throws where an array of this shape could not be.
void check_shape(const std::vector<std::int64_t>& shape, std::size_t leaf) {
  std::int64_t bytes = size_of(DType::complex128);
  for (const std::int64_t n : shape) {
    if (n < 0 || (n > 0 && bytes > most_bytes / n))
      saved::refuse("leaf " + std::to_string(leaf) + " has an axis of length " + std::to_string(n));
    if (n > 0) bytes *= n;  // of an empty array as well: its strides are products of the others
  }
}

struct Leaves {
  std::vector<LeafArray> arrays;
  std::vector<bool> frozen;
};
Leaves saved_leaves(nb::handle object) {
  const nb::tuple parts = saved::items(object, 3, "the leaves");
  std::vector<std::pair<LeafArray, bool>> kinds;
  for (nb::handle kind : saved::items(parts[0], "the kinds of leaves")) kinds.push_back(saved_kind(kind));
  const auto table = saved::numbers<std::uint32_t>(parts[1], "the leaves");
  const auto shapes = saved::numbers<std::int64_t>(parts[2], "the shapes");
  if (table.size() % 2 != 0) saved::refuse("the leaves are " + std::to_string(table.size()) + " numbers, not two each");
  Leaves leaves;
  std::size_t next = 0;
  for (std::size_t i = 0; 2 * i < table.size(); ++i) {
    const std::uint32_t kind = table[2 * i], ndim = table[2 * i + 1];
    const std::size_t left = shapes.size() - next;
    const std::string name = "leaf " + std::to_string(i);
    if (kind >= kinds.size())
      saved::refuse(name + " is of kind " + std::to_string(kind) + ", and there are " + std::to_string(kinds.size()));
    if (ndim > std::uint32_t(max_ndim) || ndim > left)
      saved::refuse(name + " has " + std::to_string(ndim) + " axes, and there are " + std::to_string(left) +
                    " lengths left");
    LeafArray& leaf = leaves.arrays.emplace_back(kinds[kind].first);
    leaves.frozen.push_back(kinds[kind].second);
    leaf.shape.assign(shapes.begin() + static_cast<std::ptrdiff_t>(next),
                      shapes.begin() + static_cast<std::ptrdiff_t>(next + ndim));
    check_shape(leaf.shape, i);
    next += ndim;
  }
  if (next != shapes.size())
    saved::refuse("there are " + std::to_string(shapes.size() - next) + " lengths of axes too many");
  return leaves;
}

nb::list saved_rules(nb::handle object, std::size_t leaves) {
  const nb::tuple parts = saved::items(object, 2, "the rules");
  const nb::tuple rules = saved::items(parts[0], "the rules");
  nb::list all;
  for (const std::uint32_t number : saved::numbers<std::uint32_t>(parts[1], leaves, "the leaves' rules")) {
    if (number >= rules.size())
      saved::refuse("a leaf has rule " + std::to_string(number) + ", and there are " + std::to_string(rules.size()));
    all.append(nb::object(rules[number]));
  }
  return all;
}

// Segments follow one another; the vector may have parts that no leaf covers.
std::optional<Layout> saved_layout(nb::handle object, const std::vector<LeafArray>& leaves) {
  if (object.is_none()) return {};
  const nb::tuple parts = saved::items(object, 3, "the layout");
  Layout layout{saved_dtype(parts[0]),
                saved::integer(parts[1], 0, most_bytes / size_of(DType::complex128), "the size of the flat vector"),
                saved::numbers<std::int64_t>(parts[2], leaves.size(), "the segments"),
                {},
                {}};
  std::int64_t end = 0;
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const std::int64_t begin = layout.offsets[i], size = size_of(leaves[i].shape);
    if (begin < end || begin > layout.size || size > layout.size - begin)
      saved::refuse("segment " + std::to_string(i) + " begins at " + std::to_string(begin) + " and has " +
                    std::to_string(size) + " elements; the one before it ends at " + std::to_string(end) +
                    ", the vector at " + std::to_string(layout.size));
    if (leaves[i].dtype != layout.dtype || leaves[i].device != leaves[0].device)
      saved::refuse("segment " + std::to_string(i) + " is of another dtype or device than the flat vector");
    end = begin + size;
    layout.shapes.push_back(leaves[i].shape);
    layout.strides.push_back(c_strides(leaves[i].shape));
  }
  return layout;
}

// Of slots and master copy, for each element.
std::int64_t state_bytes(const LeafSpec& leaf) {
  const DType compute = leaf.program.compute(leaf.dtype);
  std::int64_t bytes = leaf.program.has_master(leaf.dtype) ? size_of(compute) : 0;
  for (const RuleValue& rule : leaf.program.stages)
    for (int slot = 0; slot < rule.slot_count(); ++slot)
      bytes += size_of(rule.info().slots[static_cast<std::size_t>(slot)].real ? real_dtype(compute) : compute);
  return bytes;
}

void check_sizes(const std::vector<LeafSpec>& leaves, std::size_t memory, std::size_t clocks) {
  std::int64_t left = static_cast<std::int64_t>(memory);
  std::size_t scalars = 0;
  for (const LeafSpec& leaf : leaves) {
    const std::int64_t item = state_bytes(leaf), size = size_of(leaf.shape);
    if (item > 0 && size > left / item)
      saved::refuse("the state arrays have " + std::to_string(memory) + " bytes, too few for \"" + leaf.name + "\"");
    left -= item * size;
    for (const RuleValue& rule : leaf.program.stages) scalars += static_cast<std::size_t>(rule.info().clock_size);
  }
  if (left != 0) saved::refuse("the state arrays have " + std::to_string(left) + " bytes too many");
  if (scalars != clocks)
    saved::refuse("the clocks are " + std::to_string(clocks) + ", the rules have " + std::to_string(scalars));
}

// Arrays of the right shape and dtype without memory of their own: masters are overwritten at once.
struct Blank {
  std::vector<LeafArray> leaves;  // of which the views have the shapes
  std::vector<ArrayView> views;
  std::vector<std::vector<std::int64_t>> strides;
  std::map<int, nb::object> zeros;  // by device
  explicit Blank(std::vector<LeafArray> of);
};
Blank::Blank(std::vector<LeafArray> of) : leaves(std::move(of)) {
  alignas(16) static std::byte zero[16] = {};
  for (const LeafArray& leaf : leaves) strides.emplace_back(leaf.shape.size(), 0);
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    const LeafArray& leaf = leaves[i];
    if (leaf.device != on_host && !zeros.contains(leaf.device)) {
      require_cuda("unpickling a state: a leaf");
      check_device(leaf.device);
      zeros[leaf.device] = device_zeros(leaf.device, DType::complex128, {});
    }
    views.push_back({leaf.device == on_host ? zero : as_device_array(zeros[leaf.device].ptr())->data, leaf.shape.data(),
                     strides[i].data(), 1, static_cast<std::int32_t>(leaf.shape.size()), leaf.dtype, true, true,
                     leaf.device});
  }
}

// How many were taken.
std::size_t take_bytes(const Memory& memory, const char* from) {
  if (memory.bytes == 0) return 0;
  if (memory.device == on_host) std::memcpy(memory.data, from, memory.bytes);
  else cuda::copy(memory.data, memory.device, reinterpret_cast<const std::byte*>(from), on_host, memory.bytes);
  return memory.bytes;
}

void set_user_states(std::map<std::uint32_t, UserStages>& stages, nb::handle saved) {
  if (!PyDict_Check(saved.ptr())) saved::refuse("the states of user-defined rules: expected a dict");
  const nb::dict states = nb::borrow<nb::dict>(saved);
  if (states.size() != stages.size())
    saved::refuse("there are states of user-defined rules for " + std::to_string(states.size()) + " leaves, of " +
                  std::to_string(stages.size()) + " that have such rules");
  for (auto& [leaf, entry] : stages) {
    const nb::int_ key(leaf);
    if (!states.contains(key))
      saved::refuse("leaf " + std::to_string(leaf) + " lacks the states of its user-defined rules");
    const nb::tuple items = saved::items(states[key], entry.states.size(), "the states of a leaf's user-defined rules");
    for (std::size_t i = 0; i < entry.states.size(); ++i) entry.states[i] = items[i];
  }
}

Seen saved_seen(nb::handle object) {
  const nb::tuple parts = saved::items(object, 2, "what was seen of the steps");
  const auto norm = saved::numbers<double>(parts[1], "the last norm");
  if (norm.size() > 1) saved::refuse("there are " + std::to_string(norm.size()) + " last norms");
  return {saved::integer(parts[0], 0, INT64_MAX, "the number of skipped steps"),
          norm.empty() ? std::nullopt : std::optional(norm[0])};
}

}  // namespace

std::unique_ptr<State> State::unpickled(nb::handle data) {
  const nb::tuple parts = saved::items(data, 8, "the data");
  Leaves leaves = saved_leaves(parts[1]);
  const std::size_t count = leaves.arrays.size();
  auto spec = TreeSpec::from_state(parts[0]);
  if (spec->leaf_count() != count)
    saved::refuse("the tree has " + std::to_string(spec->leaf_count()) + " leaves, and there are " +
                  std::to_string(count));
  spec->check_axes([&](std::uint32_t leaf) { return leaves.arrays[leaf].shape.size(); });
  const nb::list rules = saved_rules(parts[2], count);
  auto layout = saved_layout(parts[3], leaves.arrays);
  const nb::object memory_object = parts[5];
  const std::string_view memory = saved::bytes(memory_object, "the state arrays");
  const auto clocks = saved::numbers<double>(parts[6], "the clocks");
  const Seen seen = saved_seen(parts[7]);
  std::map<std::uint32_t, UserStages> user;
  check_sizes(leaf_specs(*spec, leaves.arrays, rules, user), memory.size(), clocks.size());
  std::vector<LeafArray> vector;
  if (layout)
    vector.push_back({{layout->size}, layout->dtype, Library::other, count > 0 ? leaves.arrays[0].device : on_host});
  const Blank blank(layout ? vector : leaves.arrays);
  std::unique_ptr<State> state;
  {
    const OnStreams on(streams_of(leaves.arrays), {});
    state = std::make_unique<State>(std::move(spec), std::move(leaves.arrays), rules, blank.views, std::move(layout));
  }
  set_user_states(state->user_stages_, parts[4]);
  std::size_t byte = 0, scalar = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    for (const std::uint32_t part : state->core_leaves(i)) {
      for (const Memory& piece : memory_of(state->core_, part)) byte += take_bytes(piece, memory.data() + byte);
      for (int stage = 0; stage < static_cast<int>(state->core_.spec(part).program.stages.size()); ++stage) {
        const std::size_t n =
            state->core_.spec(part).program.stages[static_cast<std::size_t>(stage)].info().clock.size();
        state->core_.set_clock(part, stage, std::span(clocks).subspan(scalar, n));
        scalar += n;
      }
    }
    if (leaves.frozen[i]) state->core_.set_frozen(state->core_leaves(i), true);
  }
  state->core_.set_seen(seen);
  return state;
}

}  // namespace optimisers::python
