// extend.cpp: a state that takes over what another had for leaves that both have.
#include <algorithm>
#include <cstring>

#include "errors.hpp"
#include "optimisers/cuda.hpp"
#include "state/state.hpp"
#include "unlocked.hpp"

namespace optimisers::python {
namespace {

void copy_memory(const std::vector<Memory>& to, const std::vector<Memory>& from) {
  const auto alike = [](const Memory& a, const Memory& b) { return a.bytes == b.bytes; };
  if (!std::ranges::equal(to, from, alike)) value_error("extend_: a leaf has other state arrays than it had");
  Unlocked unlocked;
  for (std::size_t i = 0; i < to.size(); ++i) {
    if (to[i].bytes == 0) continue;
    if (to[i].device == on_host && from[i].device == on_host) std::memcpy(to[i].data, from[i].data, to[i].bytes);
    else cuda::copy(to[i].data, to[i].device, from[i].data, from[i].device, to[i].bytes);
  }
}

}  // namespace

void State::take_over(State& old, std::span<const std::pair<std::uint32_t, std::uint32_t>> leaves,
                      std::span<Handle* const> handles, std::span<const std::uint32_t> nodes, const nb::object& self) {
  Use use(old);
  for (const auto& [leaf, before] : leaves) {
    const std::vector<std::uint32_t> parts = core_leaves(leaf), old_parts = old.core_leaves(before);
    if (parts.size() != old_parts.size()) value_error("extend_: a leaf has another rule than it had");
    for (std::size_t i = 0; i < parts.size(); ++i) {
      copy_memory(memory_of(core_, parts[i]), memory_of(old.core_, old_parts[i]));
      set_clocks(core_, parts[i], clocks_of(old.core_, old_parts[i]));
    }
    core_.set_frozen(parts, old.core_.frozen(before));
    if (auto found = old.user_stages_.find(before); found != old.user_stages_.end())
      user_stages_.at(leaf).states = found->second.states;
  }
  core_.set_seen(old.core_.seen());
  told_ = old.told_;
  revision_ = old.revision_ + 1;
  old.plain_ = false;
  old.replaced_ = true;  // from here on nothing fails
  std::vector<nb::object> gone;
  for (std::size_t i = 0; i < handles.size(); ++i) {
    gone.push_back(std::move(handles[i]->core));
    handles[i]->core = self;
    handles[i]->state = this;
    handles[i]->node = nodes[i];
  }
}

}  // namespace optimisers::python
