// state.cpp: which leaves share a group, where their slots lie and what they start at; copies of all that.
#include "step/state.hpp"

#include <algorithm>
#include <cstring>

#include "cpu/edges.hpp"
#include "device.hpp"
#include "environment.hpp"
#include "optimisers/threads.hpp"
#include "refuse.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

constexpr std::int64_t leaf_alignment = 64;          // bytes: every leaf's slots start on a cache line
constexpr std::int64_t device_leaf_alignment = 256;  // on an accelerator, where memory is read in larger pieces

[[noreturn]] void refuse_matrix(const LeafSpec& spec, const RuleInfo& info, const std::string& why) {
  refuse(std::string("setup: ") + info.text.name + " at \"" + spec.name + "\" " + why, spec.name);
}

// A matrix stage needs a matrix, and to be the last that looks at a whole leaf.
void check_matrices(const LeafSpec& spec) {
  const RuleInfo* matrix = nullptr;
  for (const RuleValue& rule : spec.program.stages) {
    const RuleInfo& info = rule.info();
    if (matrix != nullptr && info.reducing())
      refuse_matrix(spec, info,
                    std::string("measures what ") + matrix->text.name +
                        " made of whole matrices; put it "
                        "before that rule");
    if (!info.matrix()) continue;
    matrix = &info;
    const Matrices how = info.matrices(rule.data());
    cpu::MatrixShape shape;
    if (!cpu::matrix_shape(spec.shape, how, shape)) {
      std::string axes;
      for (const std::int64_t n : spec.shape) axes += std::to_string(n) + ", ";
      refuse_matrix(spec, info,
                    std::string("works on ") + (how.batched ? "arrays of matrices, three axes or more" : "matrices") +
                        ", and its shape is (" +
                        axes.substr(0, axes.size() < 2 ? 0 : axes.size() - (spec.shape.size() == 1 ? 1 : 2)) +
                        "); give it another rule, such as AdamW");
    }
  }
}

void check_spec(const LeafSpec& spec) {
  if (!is_trainable(spec.dtype))
    throw Error(ErrorKind::type,
                "setup: leaf \"" + spec.name + "\" is " + std::string(name_of(spec.dtype)) +
                    "; leaves are real or complex floating point",
                spec.name);
  check_matrices(spec);
  for (const RuleValue& rule : spec.program.stages) {
    rule.check();
    check_fits(spec, rule, "setup");
    if (rule.info().summing() && spec.device != on_host)
      refuse(std::string("setup: ") + rule.info().text.name + " at \"" + spec.name +
                 "\" sums over its leaf, which leaves on a device cannot yet; keep this leaf on the host, or leave the "
                 "rule out",
             spec.name);
    if (rule.info().refuses_complex && is_complex_dtype(spec.dtype))
      throw Error(ErrorKind::value,
                  std::string("setup: ") + rule.info().text.name + " at \"" + spec.name + "\" cannot train " +
                      std::string(name_of(spec.dtype)) + ": " + rule.info().refuses_complex,
                  spec.name);
  }
}

void write_row(const Group& group, const Program& program, std::byte* row) {
  for (std::size_t s = 0; s < group.stages.size(); ++s) {
    const Stage& stage = group.stages[s];
    std::memcpy(row + stage.rule_offset, program.stages[s].data(), std::size_t(stage.info->size));
    std::memcpy(row + stage.clock_offset, stage.info->clock_start.data(),
                std::size_t(stage.info->clock_size) * sizeof(double));
  }
}

template <class T>
void fill_with(std::byte* to, std::int64_t n, double value) {
  std::fill_n(reinterpret_cast<T*>(to), n, from_real<T>(static_cast<real_t<T>>(value)));
}

void fill_slot(std::byte* to, std::int64_t n, DType dtype, double value) {
  if (value == 0) return;  // arenas start at zero
  switch (dtype) {
    case DType::float32:
      return fill_with<float>(to, n, value);
    case DType::float64:
      return fill_with<double>(to, n, value);
    case DType::complex64:
      return fill_with<Complex<float>>(to, n, value);
    default:
      return fill_with<Complex<double>>(to, n, value);
  }
}

// Of leaves on the host; others count as empty.
std::vector<std::int64_t> host_sizes(const Optimiser::State& state) {
  std::vector<std::int64_t> sizes;
  sizes.reserve(state.leaves.size());
  for (const LeafRecord& leaf : state.leaves) sizes.push_back(leaf.device == on_host ? leaf.size : 0);
  return sizes;
}

// Whether setup writes the group's arenas: they start at zero by themselves.
bool starts_written(const Group& group) {
  return group.device == on_host &&
         (group.master || std::any_of(group.slots.begin(), group.slots.end(),
                                      [](const GroupSlot& s) { return s.start >= 0 || s.at_x; }));
}

// What elements [begin, end) of a leaf's slots start at, and their master copy.
void start(Optimiser::State& state, Optimiser::Leaf i, const ArrayView& x, std::int64_t begin, std::int64_t end) {
  const LeafRecord& leaf = state.leaves[i];
  const Group& group = state.group_of(i);
  const auto at = [&](const Arena& arena, DType dtype) {
    return arena.data() + (leaf.offset + begin) * size_of(dtype);
  };
  for (std::size_t k = 0; k < group.slots.size(); ++k) {
    const GroupSlot& slot = group.slots[k];
    if (slot.at_x) cpu::load(x, begin, end - begin, slot.dtype, at(group.arenas[k], slot.dtype));
    if (slot.start < 0) continue;
    fill_slot(at(group.arenas[k], slot.dtype), end - begin, slot.dtype, start_of(group, slot, state.row_of(i)));
  }
  if (group.master) cpu::load(x, begin, end - begin, group.compute, at(group.masters, group.compute));
}

// Leaves lie in their groups' arenas in the order they are swept in, so that about the same threads write there.
void copy_group(const Group& from, Group& to) {
  to.rows = from.rows;
  if (to.device != on_host) return;
  cpu::on_sweeping_threads({&from.elements, 1}, [&](std::size_t, std::int64_t begin, std::int64_t end) {
    const auto copy = [&](const Arena& a, const Arena& b, DType dtype) {
      const std::int64_t item = size_of(dtype);
      std::memcpy(b.data() + begin * item, a.data() + begin * item, std::size_t((end - begin) * item));
    };
    for (std::size_t k = 0; k < from.slots.size(); ++k) copy(from.arenas[k], to.arenas[k], from.slots[k].dtype);
    if (from.master) copy(from.masters, to.masters, from.compute);
  });
}

}  // namespace

void check_fits(const LeafSpec& spec, const RuleValue& rule, const char* call) {
  const std::string found = rule.overflow(size_of(real_dtype(spec.program.compute(spec.dtype))) == 8 ? 1 : 0);
  if (!found.empty())
    refuse(std::string(call) + ": " + rule.info().text.name + " at " + quoted(spec.name) + " cannot train " +
               std::string(name_of(spec.dtype)) + ": " + found + "; make it smaller",
           spec.name);
}

Optimiser::State::State(std::vector<LeafSpec> given, std::pmr::memory_resource* where, Arenas whose)
    : memory(where), specs(std::move(given)), leaves(specs.size()), flags(specs.size()) {
  std::size_t axes = 0;
  for (const LeafSpec& spec : specs) axes += spec.shape.size();
  shapes.reserve(axes);  // records point into it
  strides.resize(axes);
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const LeafSpec& spec = specs[i];
    check_spec(spec);
    std::uint32_t g = whose == Arenas::lent ? std::uint32_t(groups.size()) : 0;
    while (g < groups.size() && !groups[g].holds(spec.program, spec.dtype, spec.device)) ++g;
    if (g == groups.size()) groups.emplace_back(spec.program, spec.dtype, spec.device);
    Group& group = groups[g];
    const std::int64_t size = size_of(spec.shape);
    leaves[i] = {.shape = shapes.data() + shapes.size(),
                 .size = size,
                 .offset = group.elements,
                 .group = g,
                 .index = group.leaves++,
                 .ndim = std::int32_t(spec.shape.size()),
                 .dtype = spec.dtype,
                 .device = spec.device};
    shapes.insert(shapes.end(), spec.shape.begin(), spec.shape.end());
    group.rows.resize(group.rows.size() + std::size_t(group.row_size));
    write_row(group, spec.program, group.rows.data() + group.rows.size() - std::size_t(group.row_size));
    if (group.device == on_host) {
      small &= size <= cpu::small_leaf;
      small_work += double(size) / double(specs.size());
    }
    const std::int64_t alignment = group.device == on_host ? leaf_alignment : device_leaf_alignment;
    const std::int64_t step = alignment / size_of(real_dtype(group.compute));
    group.elements += (size + step - 1) / step * step;
  }
  for (std::size_t i = 0; i < specs.size(); ++i) {
    const Group& group = groups[leaves[i].group];
    if (group.matrix < 0) continue;
    wholes.resize(specs.size());
    const RuleValue& rule = specs[i].program.stages[std::size_t(group.matrix)];
    cpu::matrix_shape(specs[i].shape, rule.info().matrices(rule.data()), wholes[i].shape);
  }
  for (Group& group : groups) {
    any_host |= group.device == on_host;
    reduces |= group.device == on_host && !group.reducers.empty();
    step_size = std::max(step_size, std::size_t(group.step_size));
    for (const Stage& stage : group.stages) shares |= stage.info->shared_clock > 0;
    row_words = std::max(row_words, std::size_t(group.row_size) / 8);
    if (whose == Arenas::lent) {
      group.arenas.resize(group.slots.size());
      continue;
    }
    const auto arena = [&](DType dtype) {
      const std::size_t bytes = std::size_t(group.elements) * std::size_t(size_of(dtype));
      if (group.device == on_host || bytes == 0) return Arena(bytes, int(group.arenas.size()), memory);
      return Arena(accelerator().allocate(group.device, bytes), bytes, group.device,
                   [](int device, std::byte* data) { accelerator().release(device, data); });
    };
    for (const GroupSlot& slot : group.slots) group.arenas.push_back(arena(slot.dtype));
    if (group.master) group.masters = arena(group.compute);
  }
}

void Optimiser::State::share_clocks() {
  struct Shared {
    const RuleInfo* info;
    const double* most;
  };
  std::vector<Shared> found;
  const auto each = [&](auto&& f) {
    for (Group& group : groups)
      for (const Stage& stage : group.stages)
        if (stage.info->shared_clock > 0)
          for (std::uint32_t i = 0; i < group.leaves; ++i) f(*stage.info, clock_of(stage, group.row(i)));
  };
  const auto of = [&](const RuleInfo& info) {
    return std::find_if(found.begin(), found.end(), [&](const Shared& s) { return s.info->same_kernels(info); });
  };
  each([&](const RuleInfo& info, double* clock) {
    const auto at = of(info);
    if (at == found.end()) found.push_back({&info, clock});
    else if (clock[0] > at->most[0]) at->most = clock;
  });
  each([&](const RuleInfo& info, double* clock) {
    const double* most = of(info)->most;
    if (most != clock) std::copy_n(most, info.shared_clock, clock);
  });
}

Optimiser::State::~State() = default;

DeviceLeaves* Optimiser::State::device_of(Leaf leaf) {
  const int device = group_of(leaf).device;
  if (device == on_host) return nullptr;
  for (auto& [index, there] : devices)
    if (index == device) return there.get();
  return nullptr;
}

Optimiser::Optimiser(std::vector<LeafSpec> leaves, std::span<const ArrayView> x, std::pmr::memory_resource* memory)
    : state_(std::make_unique<State>(std::move(leaves), memory)) {
  const Call here;
  (void)get_num_threads();  // a wrong OPTIMISERS_NUM_THREADS is found out here, and never in an update
  State& s = *state_;
  (void)get_num_threads();  // what is wrong with it is said here, not in an update
  if (std::any_of(s.groups.begin(), s.groups.end(), starts_written))
    cpu::on_sweeping_threads(host_sizes(s), [&](std::size_t leaf, std::int64_t begin, std::int64_t end) {
      start(s, Leaf(leaf), x[leaf], begin, end);
    });
  for (const Group& group : s.groups) {
    const auto same = [&](const auto& d) { return d.first == group.device; };
    if (group.device != on_host && std::none_of(s.devices.begin(), s.devices.end(), same))
      s.devices.emplace_back(group.device, accelerator().leaves(s, group.device, x));
  }
}

Optimiser::Optimiser(const Optimiser& other)
    : state_(std::make_unique<State>(other.state_->specs, other.state_->memory)) {
  const Call here;
  const State& from = *other.state_;
  for (std::size_t i = 0; i < from.leaves.size(); ++i) state_->leaves[i].frozen = from.leaves[i].frozen;
  state_->last_seen = from.seen();
  for (std::size_t g = 0; g < from.groups.size(); ++g) copy_group(from.groups[g], state_->groups[g]);
  for (const auto& [device, leaves] : from.devices) {
    auto& to = state_->devices.emplace_back(device, accelerator().leaves(*state_, device, {}));
    to.second->copy_from(*leaves);
  }
}

}  // namespace optimisers::inline OPT_ABI
