// state.cpp: setting a state up, copying it, and its rules.
#include "state/state.hpp"

#include <unordered_map>

#include "errors.hpp"
#include "state/user_stages.hpp"

namespace optimisers::python {
namespace {

std::vector<Program> programs_of(nb::handle rule) {
  if (!nb::hasattr(rule, "_programs"))
    type_error("setup: expected a rule such as Adam(), got a " + type_name(rule.ptr()));
  std::vector<Program> programs;
  for (nb::handle program : rule.attr("_programs")()) {
    Program* native = nullptr;
    if (!nb::try_cast<Program*>(program, native) || native == nullptr)
      type_error("setup: expected a Program of a rule, got a " + type_name(program.ptr()));
    programs.push_back(*native);
  }
  if (programs.empty()) value_error("setup: a rule of class " + type_name(rule.ptr()) + " has no programs");
  return programs;
}

}  // namespace

std::vector<LeafSpec> leaf_specs(const TreeSpec& spec, const std::vector<LeafArray>& leaves, const nb::list& rules,
                                 std::map<std::uint32_t, UserStages>& user) {
  std::unordered_map<PyObject*, std::vector<Program>> programs;
  std::vector<LeafSpec> specs, before;
  specs.reserve(leaves.size());
  for (std::uint32_t i = 0; i < leaves.size(); ++i) {
    nb::object rule = rules[i];
    auto [known, is_new] = programs.try_emplace(rule.ptr());
    if (is_new) known->second = programs_of(rule);
    const std::vector<Program>& parts = known->second;
    const std::string name = spec.text(spec.leaf_node(i));
    specs.push_back({name, leaves[i].shape, leaves[i].dtype, parts.back(), leaves[i].device});
    const DType wide = parts.back().compute(leaves[i].dtype);
    for (std::size_t p = 0; p + 1 < parts.size(); ++p) {
      user[i].before.push_back(static_cast<std::uint32_t>(leaves.size() + before.size()));
      user[i].states.push_back(nb::none());
      before.push_back(
          {name, leaves[i].shape, parts.back().master ? wide : leaves[i].dtype, parts[p], leaves[i].device});
    }
  }
  specs.insert(specs.end(), std::make_move_iterator(before.begin()), std::make_move_iterator(before.end()));
  return specs;
}

Streams streams_of(std::span<const LeafArray> leaves) {
  Streams streams;
  for (const LeafArray& leaf : leaves) streams.add(leaf.device, leaf.library);
  return streams;
}

Layout layout_of(const Flattened& model, DType dtype) {
  Layout layout{dtype, 0, {}, {}, {}};
  for (const ArrayView& a : model.views) {
    layout.offsets.push_back(layout.size);
    layout.shapes.emplace_back(a.shape, a.shape + a.ndim);
    layout.strides.push_back(c_strides(layout.shapes.back()));
    layout.size += size_of(a);
  }
  return layout;
}

State::State(std::unique_ptr<TreeSpec> spec, std::vector<LeafArray> leaves, nb::list rules,
             std::span<const ArrayView> arrays, std::optional<Layout> layout)
    : spec_(std::move(spec)),
      leaves_(std::move(leaves)),
      rules_(std::move(rules)),
      layout_(std::move(layout)),
      streams_(streams_of(leaves_)),
      core_(leaf_specs(*spec_, leaves_, rules_, user_stages_),
            [&] {
              if (!layout_) return std::vector<ArrayView>(arrays.begin(), arrays.end());
              std::vector<ArrayView> segments(leaves_.size());
              for (std::uint32_t i = 0; i < leaves_.size(); ++i) segment(arrays[0], i, segments[i]);
              return segments;
            }()),
      model_(*spec_),
      gradients_(*spec_) {
  size_scratch();
}

State::State(const State& other)
    : spec_(other.spec_->copy()),
      leaves_(other.leaves_),
      rules_(nb::list(other.rules_)),
      setup_rule_(other.setup_rule_),
      layout_(other.layout_),
      user_stages_(copied_user_stages(other.user_stages_)),
      streams_(other.streams_),
      core_(other.core_),
      model_(*spec_),
      gradients_(*spec_),
      told_(other.told_) {
  size_scratch();
}

State::~State() {
  if (held_.empty()) return;
  try {
    wait_for(held_until_);
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): a device that fails reads nothing any more
  }
}

void State::size_scratch() {
  updates_.resize(leaves_.size());
  if (spec_->tied()) update_of_leaf_.assign(leaves_.size(), -1);
  std::size_t axes = 0;
  for (const Place& place : spec_->places) axes += place.axes.size();
  permuted_.resize(axes * 4);
  for (const LeafArray& leaf : leaves_) elements_ += size_of(leaf.shape);
  plain_ = streams_.empty();
}

void State::check_node(std::uint32_t node) const {
  if (dropped_) throw Error(ErrorKind::busy, "this state has been let go by the garbage collector");
  const std::size_t count = spec_->nodes.size() + spec_->marks.size();
  if (node >= count)
    value_error("this state tree has " + std::to_string(count) + " nodes, there is no node " + std::to_string(node));
}

void State::check_leaf(std::uint32_t leaf) const {
  if (dropped_) throw Error(ErrorKind::busy, "this state has been let go by the garbage collector");
  if (leaf >= leaves_.size())
    value_error("this state has " + std::to_string(leaves_.size()) + " leaves, there is no leaf " +
                std::to_string(leaf));
}

int State::visit_objects(visitproc visit, void* arg) {
  Py_VISIT(rules_.ptr());
  Py_VISIT(setup_rule_.ptr());
  for (const auto& [leaf, stages] : user_stages_)
    for (const nb::object& s : stages.states) Py_VISIT(s.ptr());
  for (const nb::object& array : held_) Py_VISIT(array.ptr());
  Py_VISIT(counts_.ptr());
  if (const int stop = model_.visit_keys(visit, arg)) return stop;
  if (const int stop = gradients_.visit_keys(visit, arg)) return stop;
  return spec_->visit_objects(visit, arg);
}

void State::drop_objects() {
  dropped_ = true;
  plain_ = false;
  const nb::list rules = std::exchange(rules_, nb::list());
  const nb::object setup_rule = std::exchange(setup_rule_, nb::none());
  std::vector<nb::object> states;
  for (auto& [leaf, stages] : user_stages_)
    for (nb::object& s : stages.states) states.push_back(std::exchange(s, nb::none()));
  count_ = nullptr;
  const nb::object counts = std::move(counts_);
  model_.drop_keys();
  gradients_.drop_keys();
  spec_->drop_objects();
}

void State::segment(const ArrayView& flat, std::uint32_t leaf, ArrayView& view) const {
  const std::int64_t step = flat.strides ? flat.strides[0] * flat.stride_unit : size_of(flat.dtype);
  const Layout& layout = layout_.value();
  view.data = flat.data + layout.offsets[leaf] * step;
  view.shape = layout.shapes[leaf].data();
  view.ndim = static_cast<std::int32_t>(layout.shapes[leaf].size());
  view.strides = step == size_of(flat.dtype) ? nullptr : layout.strides[leaf].data();
  view.stride_unit = step;
  view.dtype = flat.dtype;
  view.writable = flat.writable;
  view.present = flat.present;
  view.device = flat.device;
}

std::vector<std::uint32_t> State::core_leaves(std::uint32_t leaf) const {
  std::vector<std::uint32_t> all;
  if (auto found = user_stages_.find(leaf); found != user_stages_.end()) all = found->second.before;
  all.push_back(leaf);
  return all;
}

std::vector<std::uint32_t> State::core_leaves_below(std::uint32_t node) const {
  std::vector<std::uint32_t> all = spec_->leaves_below(node);
  if (user_stages_.empty()) return all;
  for (std::size_t i = 0, n = all.size(); i < n; ++i)
    if (auto found = user_stages_.find(all[i]); found != user_stages_.end())
      all.insert(all.end(), found->second.before.begin(), found->second.before.end());
  return all;
}

}  // namespace optimisers::python
