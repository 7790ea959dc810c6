// setup.cpp: states over spans: names, segments and flat arrays in front of an Optimiser.
#include <algorithm>

#include "api/failure.hpp"
#include "api/state_data.hpp"

namespace optimisers::inline OPT_ABI {
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

// The span must outlive the view. Elements that do not follow one another have the span's own axes.
ArrayView view_of(const AnySpan& a, std::span<const std::int64_t> shape) {
  return {.data = a.data(),
          .shape = shape.data(),
          .strides = a.contiguous() ? nullptr : a.steps().data(),
          .stride_unit = size_of(a.dtype()),
          .ndim = std::int32_t(shape.size()),
          .dtype = a.dtype(),
          .writable = a.writable(),
          .present = a.present(),
          .device = a.device()};
}

void check_axes(const char* what, const AnySpan& a, const LeafSpec& spec) {
  if (a.contiguous() || std::ranges::equal(a.shape(), spec.shape)) return;
  refuse(std::string(what) + " " + quoted(spec.name) + " does not lie in one piece and has shape " +
             shape_text(a.shape()) + ", its leaf has " + shape_text(spec.shape) +
             "; give the leaf that shape at setup, or pass a copy",
         spec.name);
}

// The leaf's specification; checks what the optimiser takes for granted.
LeafSpec spec_of(const Named& leaf, const std::optional<Program>& program) {
  LeafSpec spec{leaf.name, leaf.shape, leaf.values.dtype(), program.value_or(Program{}), leaf.values.device()};
  if (spec.shape.empty()) spec.shape.assign(leaf.values.shape().begin(), leaf.values.shape().end());
  if (product(spec.shape) != leaf.values.size())
    refuse("setup: leaf \"" + leaf.name + "\" has " + std::to_string(leaf.values.size()) + " elements, shape " +
               shape_text(spec.shape) + " needs " + std::to_string(product(spec.shape)),
           leaf.name);
  check_axes("setup: leaf", leaf.values, spec);
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
  if (!flat.contiguous()) refuse("setup: a flat array must lie in one piece");
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
  data->optimiser.speak(Optimiser::Language::cxx);
  data->has_rule = std::move(has_rule);
  for (std::uint32_t i = 0; i < specs.size(); ++i) {
    data->by_name.push_back(i);
    if (!data->has_rule[i]) data->optimiser.set_frozen({&i, 1}, true);
    data->sizes.push_back(model.leaves[i].values.size());
    data->elements += data->sizes.back();
  }
  data->make_call();
  const auto name = [&](std::uint32_t i) -> const std::string& { return specs[i].name; };
  auto& order = data->by_name;
  std::sort(order.begin(), order.end(), [&](auto l, auto r) { return name(l) < name(r); });
  const auto twice = std::adjacent_find(order.begin(), order.end(), [&](auto l, auto r) { return name(l) == name(r); });
  if (twice != order.end())
    refuse("setup: two leaves are called \"" + name(*twice) + "\"; names must differ", name(*twice));
  return data;
}

void State::Data::adjust(std::span<const Optimiser::Leaf> leaves, const AnyRule& rule, int stage) {
  InUse in_use(busy);
  rule.check();
  std::vector<Optimiser::StageRule> rules;
  for (const auto leaf : leaves) {
    const auto& stages = optimiser.spec(leaf).program.stages;
    for (int s = 0; s < int(stages.size()); ++s)
      if ((stage < 0 || s == stage) && stages[std::size_t(s)].info().same_rule(rule.info()))
        rules.push_back({leaf, s, rule});
  }
  if (rules.empty()) refuse(std::string("adjust: no stage here is ") + rule.info().text.name);
  optimiser.set_rules(rules);
}

// The leaves and their shapes: what a call brings is filled in.
void State::Data::make_call() {
  call.resize(sizes.size());
  for (std::uint32_t i = 0; i < sizes.size(); ++i) {
    const LeafSpec& spec = optimiser.spec(i);
    call[i] = {.leaf = i, .x = view_of({}, spec.shape), .dx = view_of({}, spec.shape)};
  }
}

// One array a leaf, by place or by name, or one that holds all leaves: into the call's list.
template <class Span>
void State::Data::place(const ArrayList<Span>& arrays, const char* what, ArrayView LeafUpdate::* where) {
  const auto misfit = [&](std::uint32_t i, const AnySpan& a) {
    const LeafSpec& spec = optimiser.spec(i);
    if (a.size() != sizes[i])
      refuse(std::string(doing) + ": " + what + " at \"" + spec.name + "\" has " + std::to_string(a.size()) +
                 " elements, expected " + std::to_string(sizes[i]) + " (" + shape_text(spec.shape) + ")",
             spec.name);
    check_axes((std::string(doing) + ": " + what + " at").c_str(), a, spec);
  };
  const auto put = [&](std::uint32_t i, const AnySpan& a) {
    const bool contiguous = a.contiguous();
    if (a.present() && (a.size() != sizes[i] || !contiguous)) [[unlikely]]
      misfit(i, a);
    ArrayView& view = call[i].*where;
    if (is_same(view, a)) return;
    accepted = false;
    view.data = a.data();
    view.strides = contiguous ? nullptr : a.steps().data();
    view.stride_unit = size_of(a.dtype());
    view.dtype = a.dtype();
    view.writable = a.writable();
    view.present = a.present();
    view.device = a.device();
  };
  if (!arrays.named().empty()) {
    accepted = false;
    for (LeafUpdate& u : call) (u.*where).present = false;
    for (const auto& [name, a] : arrays.named()) {
      const std::uint32_t i = find(name);
      if ((call[i].*where).present)
        refuse(std::string(doing) + ": two " + what + "s are called " + quoted(optimiser.spec(i).name),
               optimiser.spec(i).name);
      put(i, a);
    }
    for (std::uint32_t i = 0; i < sizes.size(); ++i)
      if (!(call[i].*where).present) put(i, {});
    return;
  }
  const auto list = arrays.list();
  const bool flat = list.size() == 1 && sizes.size() != 1;
  if (flat ? !list[0].present() || list[0].size() != elements : list.size() != sizes.size())
    refuse(std::string(doing) + ": " + what + "s come as " + std::to_string(list.size()) + " arrays" +
           (flat ? " of " + std::to_string(list[0].size()) + " elements" : "") + "; expected one for each of the " +
           std::to_string(sizes.size()) + " leaves, or one of all " + std::to_string(elements) + " elements");
  if (!flat) {
    for (std::uint32_t i = 0; i < sizes.size(); ++i) put(i, list[i]);
    return;
  }
  if (!list[0].contiguous()) refuse(std::string(doing) + ": the flat array of " + what + "s must lie in one piece");
  std::int64_t offset = 0;
  for (std::uint32_t i = 0; i < sizes.size(); offset += sizes[i++]) put(i, list[0].subspan(offset, sizes[i]));
}

State::State(const Program& program, const Model& model, const SetupOptions& options)
    : State([&program](const std::string&) { return std::optional(program); }, model, options) {}
State::State(const Chooser& choose, const Model& model, const SetupOptions& options)
    : data_(Data::make(choose, model, options)) {}
State::State(const State& other) {
  InUse in_use(other.data_->busy);
  data_ = std::make_unique<Data>(*other.data_);
}
State::State(State&&) noexcept = default;
State& State::operator=(const State& other) { return *this = State(other); }
State& State::operator=(State&&) noexcept = default;
State::~State() = default;

void State::Data::place_parameters(const MutableArrays& x) {
  place(x, "parameter", &LeafUpdate::x);
  check_parameters();
}

template <class Span>
void State::Data::place_for(const char* call_name, const ArrayList<Span>& x) {
  struct Doing {
    const char*& doing;
    ~Doing() { doing = "update"; }
  } until_the_end{doing};
  doing = call_name;
  accepted = false;
  place(x, "parameter", &LeafUpdate::x);
  check_parameters();
}

template void State::Data::place_for(const char*, const ArrayList<AnySpan>&);
template void State::Data::place_for(const char*, const ArrayList<MutableSpan>&);

void State::Data::check_parameters() const {
  for (const LeafUpdate& u : call) {
    if (u.x.present) continue;
    const std::string& name = optimiser.spec(u.leaf).name;
    refuse(std::string(doing) + ": parameter at \"" + name + "\" is missing; only gradients may be", name);
  }
}

bool State::Data::update(const MutableArrays& x, const Arrays& dx, const UpdateOptions* options) {
  InUse in_use(busy);
  if (!accepted || !are_same(x, &LeafUpdate::x) || !are_same(dx, &LeafUpdate::dx)) {
    place_parameters(x);
    place(dx, "gradient", &LeafUpdate::dx);
  }
  if (options != nullptr) {
    accepted = false;
    return optimiser.update(call, options->scale, options->reduce_norm, options->non_finite);
  }
  if (accepted) return optimiser.update(call, Examined{});
  optimiser.update(call);
  accepted = true;
  return true;
}

bool State::update(const MutableArrays& x, const Arrays& dx) { return data_->update(x, dx, nullptr); }
bool State::update(const MutableArrays& x, const Arrays& dx, const UpdateOptions& options) {
  return data_->update(x, dx, &options);
}

void State::flush(const MutableArrays& x) {
  InUse in_use(data_->busy);
  data_->place_parameters(x);
  data_->accepted = false;
  for (LeafUpdate& u : data_->call) u.dx.present = false;
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

Result<> State::try_update(const MutableArrays& x, const Arrays& dx) noexcept {
  return attempt([&] { update(x, dx); });
}
Result<> State::try_update(const MutableArrays& x, const Arrays& dx, const UpdateOptions& options) noexcept {
  return attempt([&] { update(x, dx, options); });
}

Result<State> detail::try_setup(Program (*make)(const void*), const void* rule, const Model& model,
                                const SetupOptions& options) noexcept {
  std::optional<State> state;
  if (const Result<> done = attempt([&] { state.emplace(make(rule), model, options); }); !done) return done.error();
  return std::move(*state);  // NOLINT(bugprone-unchecked-optional-access): the attempt succeeded
}

Result<> State::try_adjust(const Fields& fields) noexcept {
  return attempt([&] { adjust(fields); });
}

std::size_t State::size() const noexcept { return data_->sizes.size(); }
std::int64_t State::elements() const noexcept { return data_->elements; }

Leaf State::leaf(std::size_t index) {
  if (index >= size())
    refuse("leaf: there are " + std::to_string(size()) + " leaves, got index " + std::to_string(index));
  return {*data_, static_cast<std::uint32_t>(index)};
}

std::uint32_t State::Data::find(std::string_view name) const {
  const auto name_of_leaf = [this](std::uint32_t i) -> const std::string& { return optimiser.spec(i).name; };
  const auto& order = by_name;
  const auto found = std::lower_bound(order.begin(), order.end(), name,
                                      [&](std::uint32_t i, std::string_view n) { return name_of_leaf(i) < n; });
  if (found != order.end() && name_of_leaf(*found) == name) return *found;
  std::string names;
  for (std::uint32_t i = 0; i < sizes.size() && i < 20; ++i) names += (i ? ", " : "") + optimiser.spec(i).name;
  refuse("no leaf is called \"" + std::string(name) + "\"; leaves are " + names + (sizes.size() > 20 ? ", ..." : ""));
}

Leaf State::operator[](std::string_view name) { return {*data_, data_->find(name)}; }
ConstLeaf State::operator[](std::string_view name) const { return {*data_, data_->find(name)}; }
ConstLeaf State::leaf(std::size_t index) const { return const_cast<State&>(*this).leaf(index); }

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

std::vector<ConstLeaf> State::leaves(std::string_view part) const {
  const std::vector<Leaf> found = const_cast<State&>(*this).leaves(part);
  return {found.begin(), found.end()};
}

void State::adjust(double eta) { adjust(Fields{{"eta", eta}}); }
void State::adjust(const Fields& fields) { data_->adjust(data_->all(), fields); }
void State::adjust_rule(const AnyRule& rule) { data_->adjust(data_->all(), rule); }
void State::freeze() { data_->freeze(data_->all(), true); }
void State::thaw() { data_->freeze(data_->all(), false); }

}  // namespace optimisers::inline OPT_ABI
