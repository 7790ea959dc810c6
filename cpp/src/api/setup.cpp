// setup.cpp: states over spans: names, segments and flat arrays in front of an Optimiser.
#include <algorithm>

#include "api/failure.hpp"
#include "api/state_data.hpp"

namespace optimisers {
namespace {

std::int64_t product(std::span<const std::int64_t> shape) {
  std::int64_t n = 1;
  for (const auto axis : shape) {
    if (axis < 0) refuse("setup: a shape has a negative length: " + shape_text(shape));
    if (axis != 0 && n > (std::int64_t(1) << 58) / axis) refuse("setup: a shape is too large: " + shape_text(shape));
    n *= axis;
  }
  return n;
}

ArrayView view_of(const AnySpan& a, std::span<const std::int64_t> shape) {
  return {.data = a.data(),
          .shape = shape.data(),
          .ndim = std::int32_t(shape.size()),
          .dtype = a.dtype(),
          .writable = a.writable(),
          .present = a.present(),
          .device = a.device()};
}

// The leaf's specification; checks what the optimiser takes for granted.
LeafSpec spec_of(const Named& leaf, const std::optional<Program>& program) {
  LeafSpec spec{leaf.name, leaf.shape, leaf.values.dtype(), program.value_or(Program{}), leaf.values.device()};
  if (spec.shape.empty()) spec.shape = {leaf.values.size()};
  if (product(spec.shape) != leaf.values.size())
    refuse("setup: leaf \"" + leaf.name + "\" has " + std::to_string(leaf.values.size()) + " elements, shape " +
               shape_text(spec.shape) + " needs " + std::to_string(product(spec.shape)),
           leaf.name);
  if (!leaf.values.present()) refuse("setup: leaf \"" + leaf.name + "\" has no array", leaf.name);
  const auto& master = spec.program.master;
  if (master && *master != DType::float32 && *master != DType::float64)
    refuse("MixedPrecision: dtype must be float32 or float64, got " + std::string(name_of(*master)), leaf.name);
  return spec;
}

}  // namespace

Model::Model(std::span<const AnySpan> arrays) {
  for (const AnySpan& a : arrays) leaves.push_back({std::to_string(leaves.size()), a});
}

Model::Model(AnySpan flat, std::span<const Segment> segments) {
  std::int64_t offset = 0;
  for (const Segment& s : segments) {
    const std::int64_t n = product(s.shape);
    if (n > flat.size() - offset)
      refuse("setup: segment \"" + s.name + "\" ends at element " + std::to_string(offset + n) +
                 ", the flat array has " + std::to_string(flat.size()),
             s.name);
    leaves.push_back({s.name, flat.subspan(offset, n), s.shape});
    offset += n;
  }
  if (offset != flat.size())
    refuse("setup: segments hold " + std::to_string(offset) + " elements, the flat array has " +
           std::to_string(flat.size()));
}

std::unique_ptr<State::Data> State::Data::make(const Chooser& choose, const Model& model, const SetupOptions& options) {
  std::vector<LeafSpec> specs;
  std::vector<bool> has_rule;
  for (const Named& leaf : model.leaves) {
    const auto program = choose(leaf.name);
    has_rule.push_back(program.has_value());
    specs.push_back(spec_of(leaf, program));
  }
  std::vector<ArrayView> views;
  views.reserve(specs.size());
  for (std::size_t i = 0; i < specs.size(); ++i) views.push_back(view_of(model.leaves[i].values, specs[i].shape));
  const auto aliases = find_aliases(views, [&](std::size_t i) { return specs[i].name; }, "setup");
  for (std::size_t i = 0; i < aliases.size(); ++i)
    if (aliases[i].first != i)
      refuse("setup: " + quoted(specs[aliases[i].first].name) + " and " + quoted(specs[i].name) +
                 " are the same array; name it once, and sum its gradients",
             specs[i].name);

  auto data = std::make_unique<Data>(specs, views, options.memory);
  data->has_rule = std::move(has_rule);
  data->call.resize(specs.size());
  for (std::uint32_t i = 0; i < specs.size(); ++i) {
    data->by_name.push_back(i);
    if (!data->has_rule[i]) data->optimiser.set_frozen({&i, 1}, true);
    data->sizes.push_back(model.leaves[i].values.size());
    data->elements += data->sizes.back();
  }
  const auto name = [&](std::uint32_t i) -> const std::string& { return specs[i].name; };
  auto& order = data->by_name;
  std::sort(order.begin(), order.end(), [&](auto l, auto r) { return name(l) < name(r); });
  const auto twice = std::adjacent_find(order.begin(), order.end(), [&](auto l, auto r) { return name(l) == name(r); });
  if (twice != order.end())
    refuse("setup: two leaves are called \"" + name(*twice) + "\"; names must differ", name(*twice));
  return data;
}

void State::Data::adjust(std::span<const Optimiser::Leaf> leaves, const AnyRule& rule) {
  InUse in_use(busy);
  rule.check();
  std::vector<Optimiser::StageRule> rules;
  for (const auto leaf : leaves) {
    const auto& stages = optimiser.spec(leaf).program.stages;
    for (int s = 0; s < int(stages.size()); ++s)
      if (&stages[std::size_t(s)].info() == &rule.info()) rules.push_back({leaf, s, rule});
  }
  if (rules.empty()) refuse(std::string("adjust: no stage here is ") + rule.info().text.name);
  optimiser.set_rules(rules);
}

// One array a leaf, or one that holds all leaves: into the call's list.
void State::Data::place(const Arrays& arrays, const char* what, ArrayView LeafUpdate::* where) {
  const auto list = arrays.list();
  const bool flat = list.size() == 1 && sizes.size() != 1;
  if (flat ? !list[0].present() || list[0].size() != elements : list.size() != sizes.size())
    refuse(std::string("update: ") + what + "s come as " + std::to_string(list.size()) + " arrays" +
           (flat ? " of " + std::to_string(list[0].size()) + " elements" : "") + "; expected one for each of the " +
           std::to_string(sizes.size()) + " leaves, or one of all " + std::to_string(elements) + " elements");
  std::int64_t offset = 0;
  for (std::uint32_t i = 0; i < sizes.size(); ++i) {
    const LeafSpec& spec = optimiser.spec(i);
    const AnySpan a = flat ? list[0].subspan(offset, sizes[i]) : list[i];
    if (a.present() && a.size() != sizes[i])
      refuse(std::string("update: ") + what + " at \"" + spec.name + "\" has " + std::to_string(a.size()) +
                 " elements, expected " + std::to_string(sizes[i]) + " (" + shape_text(spec.shape) + ")",
             spec.name);
    call[i].leaf = i;
    call[i].*where = view_of(a, spec.shape);
    offset += sizes[i];
  }
}

State::State(const Program& program, const Model& model, const SetupOptions& options)
    : State([&program](const std::string&) { return std::optional(program); }, model, options) {}
State::State(const Chooser& choose, const Model& model, const SetupOptions& options)
    : data_(Data::make(choose, model, options)) {}
State::State(const State& other) {
  InUse in_use(other.data_->busy);
  data_ = std::make_unique<Data>(*other.data_);
  data_->call.resize(data_->sizes.size());
}
State::State(State&&) noexcept = default;
State& State::operator=(const State& other) { return *this = State(other); }
State& State::operator=(State&&) noexcept = default;
State::~State() = default;

void State::Data::place_parameters(const Arrays& x) {
  place(x, "parameter", &LeafUpdate::x);
  for (const LeafUpdate& u : call) {
    if (u.x.present) continue;
    const std::string& name = optimiser.spec(u.leaf).name;
    refuse("update: parameter at \"" + name + "\" is missing; only gradients may be", name);
  }
}

bool State::update(const Arrays& x, const Arrays& dx, const UpdateOptions& options) {
  InUse in_use(data_->busy);
  data_->place_parameters(x);
  data_->place(dx, "gradient", &LeafUpdate::dx);
  return data_->optimiser.update(data_->call, std::span<const FurtherGradient>(), options.non_finite);
}

void State::flush(const Arrays& x) {
  InUse in_use(data_->busy);
  data_->place_parameters(x);
  for (LeafUpdate& u : data_->call) u.dx = {};
  data_->optimiser.flush(data_->call);
}

std::int64_t State::skipped() const {
  InUse in_use(data_->busy);
  return data_->optimiser.seen().skipped;
}
std::optional<double> State::norm() const {
  InUse in_use(data_->busy);
  return data_->optimiser.seen().norm;
}

void State::wait() {
  InUse in_use(data_->busy);
  data_->optimiser.wait();
}

Result<> State::try_update(const Arrays& x, const Arrays& dx) noexcept {
  return attempt([&] { update(x, dx); });
}

Result<State> detail::try_setup(const Program& program, const Model& model, const SetupOptions& options) noexcept {
  std::optional<State> state;
  if (const Result<> done = attempt([&] { state.emplace(program, model, options); }); !done) return done.error();
  return std::move(*state);  // NOLINT(bugprone-unchecked-optional-access): the attempt succeeded
}

Result<> State::try_adjust(const Fields& fields) noexcept {
  return attempt([&] { adjust(fields); });
}

std::size_t State::size() const { return data_->sizes.size(); }
std::int64_t State::elements() const { return data_->elements; }

Leaf State::leaf(std::size_t index) {
  if (index >= size())
    refuse("leaf: there are " + std::to_string(size()) + " leaves, got index " + std::to_string(index));
  return {*data_, static_cast<std::uint32_t>(index)};
}

Leaf State::operator[](std::string_view name) {
  const auto name_of_leaf = [this](std::uint32_t i) -> const std::string& { return data_->optimiser.spec(i).name; };
  const auto& order = data_->by_name;
  const auto found = std::lower_bound(order.begin(), order.end(), name,
                                      [&](std::uint32_t i, std::string_view n) { return name_of_leaf(i) < n; });
  if (found != order.end() && name_of_leaf(*found) == name) return {*data_, *found};
  std::string names;
  for (std::uint32_t i = 0; i < size() && i < 20; ++i) names += (i ? ", " : "") + data_->optimiser.spec(i).name;
  refuse("no leaf is called \"" + std::string(name) + "\"; leaves are " + names + (size() > 20 ? ", ..." : ""));
}

std::vector<Leaf> State::leaves(std::string_view part) {
  std::vector<Leaf> found;
  for (std::uint32_t i = 0; i < size(); ++i) {
    const std::string& name = data_->optimiser.spec(i).name;
    const bool begins = name.compare(0, part.size(), part) == 0;
    if (part.empty() || (begins && (name.size() == part.size() || name[part.size()] == '.')))
      found.push_back({*data_, i});
  }
  return found;
}

void State::adjust(double eta) { adjust(Fields{{"eta", eta}}); }
void State::adjust(const Fields& fields) { data_->adjust(data_->all(), fields); }
void State::adjust_rule(const AnyRule& rule) { data_->adjust(data_->all(), rule); }
void State::freeze() { data_->freeze(data_->all(), true); }
void State::thaw() { data_->freeze(data_->all(), false); }

}  // namespace optimisers
