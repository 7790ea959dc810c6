// plans.cpp: what is kept between calls, and how much of it.
#include "xla/plans.hpp"

#include <algorithm>
#include <map>
#include <mutex>

#include "optimisers/parse.hpp"

namespace optimisers::python::xla {
namespace {

constexpr std::size_t most = 64;  // rules, and layouts of one: more than programs have in use, less than a leak

std::mutex& mutex() {
  static auto& m = *new std::mutex;
  return m;
}

std::vector<LentLeaf> named(const std::vector<Shape>& leaves, std::string_view names) {
  std::vector<LentLeaf> out;
  out.reserve(leaves.size());
  for (const Shape& leaf : leaves) {
    const std::size_t end = names.find('\n');
    out.push_back({std::string(names.substr(0, end)), leaf.dtype, leaf.size});
    names.remove_prefix(end == std::string_view::npos ? names.size() : end + 1);
  }
  return out;
}

}  // namespace

std::shared_ptr<RulePlans> plans_of(std::string_view rule) {
  static auto& known = *new std::map<std::string, std::shared_ptr<RulePlans>, std::less<>>;
  const std::lock_guard lock(mutex());
  if (const auto found = known.find(rule); found != known.end()) return found->second;
  auto plans = std::make_shared<RulePlans>(RulePlans{parse_program(rule), {}});
  if (known.size() >= most) known.clear();  // who is using one keeps it
  return known.emplace(rule, std::move(plans)).first->second;
}

Lease::Lease(RulePlans& plans, const std::vector<Shape>& leaves, std::string_view names) {
  {
    const std::lock_guard lock(mutex());
    auto& layouts = plans.layouts;
    auto found = std::find_if(layouts.begin(), layouts.end(), [&](const auto& l) { return l->leaves == leaves; });
    if (found == layouts.end()) {
      if (layouts.size() >= most) layouts.clear();
      found = layouts.insert(layouts.end(), std::make_shared<Layout>(Layout{leaves, {}}));
    }
    layout_ = *found;
    if (!layout_->idle.empty()) {
      step_ = std::move(layout_->idle.back());
      layout_->idle.pop_back();
    }
  }
  if (!step_) step_ = std::make_unique<LentStep>(plans.program, named(leaves, names));
}

Lease::~Lease() {
  const std::lock_guard lock(mutex());
  layout_->idle.push_back(std::move(step_));
}

}  // namespace optimisers::python::xla
