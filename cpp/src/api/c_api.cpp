// c_api.cpp: the C interface over State: every call checks its pointers and turns exceptions into status codes.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>

#include "api/failure.hpp"
#include "api/state_data.hpp"
#include "optimisers/optimisers.h"
#include "optimisers/optimisers.hpp"

namespace optimisers::inline OPT_ABI {

// The host's functions as a memory resource.
class HostMemory : public std::pmr::memory_resource {
 public:
  explicit HostMemory(const optimisers_memory& memory) : memory_(memory) {}

 private:
  void* do_allocate(std::size_t bytes, std::size_t alignment) override {
    void* block = memory_.allocate(memory_.self, bytes, alignment);
    if (block == nullptr) throw std::bad_alloc();
    return block;
  }
  void do_deallocate(void* block, std::size_t bytes, std::size_t alignment) override {
    memory_.release(memory_.self, block, bytes, alignment);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
  optimisers_memory memory_;
};

}  // namespace optimisers::inline OPT_ABI

namespace opt = optimisers;
using opt::Error;
using opt::ErrorKind;
using opt::HostMemory;
using opt::refuse;

struct optimisers_state {
  std::shared_ptr<HostMemory> memory;  // outlives the state
  opt::State state;
};

namespace {

OPT_THREAD_LOCAL opt::Failure last;

static_assert(int(OPTIMISERS_FILE) == int(ErrorKind::file) + 1 &&
              int(OPTIMISERS_MEMORY) == int(ErrorKind::memory) + 1 && int(OPTIMISERS_BUSY) == int(ErrorKind::busy) + 1);
static_assert(int(OPTIMISERS_RAISE) == int(opt::NonFinite::raise) && int(OPTIMISERS_SKIP) == int(opt::NonFinite::skip));
static_assert(int(OPTIMISERS_SCOPE) == int(opt::FieldKind::scope) &&
              int(OPTIMISERS_COUNT) == int(opt::FieldKind::count));
constexpr bool says(std::string_view text, int major, int minor, int patch) {
  const int numbers[] = {major, minor, patch};
  for (const int n : numbers) {
    int read = 0;
    std::size_t digits = 0;
    for (; digits < text.size() && text[digits] != '.'; ++digits) read = 10 * read + (text[digits] - '0');
    if (digits == 0 || read != n) return false;
    text.remove_prefix(digits < text.size() ? digits + 1 : digits);
  }
  return text.empty();
}
static_assert(says(opt::version, OPTIMISERS_VERSION_MAJOR, OPTIMISERS_VERSION_MINOR, OPTIMISERS_VERSION_PATCH));
static_assert(int(OPTIMISERS_COMPLEX128) == int(opt::DType::complex128));

// What messages of the core call a function here.
std::string in_c(const std::string& message) {
  constexpr std::pair<std::string_view, std::string_view> calls[] = {
      {"setup: ", "optimisers_create: "},
      {"update: ", "optimisers_update: "},
      {"flush: ", "optimisers_flush: "},
      {"adjust: ", "optimisers_adjust: "},
      {"thaw: ", "optimisers_freeze: "},
      {"set_num_threads: ", "optimisers_set_num_threads: "},
      {"set_executor: ", "optimisers_set_executor: "}};
  std::string text = message;
  for (const auto& [ours, here] : calls)
    if (text.starts_with(ours)) text.replace(0, ours.size(), here);
  for (const auto& [ours, here] :
       {std::pair<std::string_view, std::string_view>{"call setup again", "create the state again"},
        {"call setup with", "create the state with"},
        {"give the leaf that shape at setup", "give the leaf that shape when it is created"}})
    if (const auto at = text.find(ours); at != std::string::npos) text.replace(at, ours.size(), here);
  return text;
}

template <class F>
optimisers_status guarded(F&& f) noexcept {
  const opt::Result<> result = opt::attempt(f);
  if (result) return OPTIMISERS_OK;
  last = result.error();
  if (const auto put = opt::attempt([&] { last.message = in_c(last.message); }); !put) last = put.error();
  return static_cast<optimisers_status>(int(last.kind) + 1);
}

template <class T>
T& required(T* pointer, const char* what) {
  if (pointer == nullptr) refuse(std::string(what) + " is NULL");
  return *pointer;
}

// A structure of the caller's, as large as its header knew it: what was added to it since is not written.
template <class T>
void give(T& to, const char* what, std::size_t first_version, T value) {
  const std::size_t size = to.struct_size;
  if (size < first_version)
    refuse(std::string(what) + ": struct_size is " + std::to_string(size) + ", set it to sizeof of the structure");
  value.struct_size = size;
  std::memcpy(&to, &value, std::min(size, sizeof value));
}

// One interface for reading and writing: constness of a state does not reach into Leaf handles.
opt::State& state_of(const optimisers_state* handle) {
  return const_cast<optimisers_state&>(required(handle, "state")).state;
}

opt::Leaf leaf_of(const optimisers_state* handle, std::int64_t leaf) {
  opt::State& state = state_of(handle);
  if (leaf < 0) refuse("leaf: expected an index, got " + std::to_string(leaf));
  return state.leaf(static_cast<std::size_t>(leaf));
}

opt::AnySpan span_of(const optimisers_array& a, bool may_be_missing) {
  constexpr std::int64_t largest = std::int64_t(1) << 58;
  if (a.data == nullptr && (may_be_missing || a.size != 0)) {
    if (may_be_missing) return {};
    refuse("array: data is NULL for " + std::to_string(a.size) + " elements");
  }
  if (a.dtype < OPTIMISERS_FLOAT16 || a.dtype > OPTIMISERS_COMPLEX128)
    throw Error(ErrorKind::type, "array: " + std::to_string(a.dtype) + " is no optimisers_dtype");
  if (a.size < 0 || a.size > largest) refuse("array: size " + std::to_string(a.size) + " is out of range");
  return {a.data, a.size, static_cast<opt::DType>(a.dtype), true};
}

std::vector<opt::AnySpan> spans_of(const optimisers_array* arrays, std::size_t count, bool may_be_missing) {
  if (count > 0) (void)required(arrays, "arrays");
  std::vector<opt::AnySpan> spans(count);
  for (std::size_t i = 0; i < count; ++i) spans[i] = span_of(arrays[i], may_be_missing);
  return spans;
}

opt::Model model_of(const optimisers_array* arrays, std::size_t count) {
  const auto spans = spans_of(arrays, count, false);
  std::vector<opt::Named> leaves;
  for (std::size_t i = 0; i < count; ++i) {
    const optimisers_array& a = arrays[i];
    opt::Named leaf{a.name != nullptr ? a.name : std::to_string(i), spans[i]};
    if (a.ndim < 0 || a.ndim > opt::max_ndim)
      refuse("array: ndim is " + std::to_string(a.ndim) + ", expected 0 to " + std::to_string(opt::max_ndim));
    if (a.ndim > 0) leaf.shape.assign(&required(a.shape, "shape"), a.shape + a.ndim);
    leaves.push_back(std::move(leaf));
  }
  return opt::Model(std::move(leaves));
}

void create(const opt::State::Chooser& choose, const optimisers_array* leaves, std::size_t count,
            const optimisers_memory* memory, optimisers_state** out) {
  (void)required(out, "out");
  const opt::Model model = model_of(leaves, count);
  std::shared_ptr<HostMemory> host;
  if (memory != nullptr) {
    if (memory->allocate == nullptr || memory->release == nullptr)
      refuse("memory: allocate and release must not be NULL");
    host = std::make_shared<HostMemory>(*memory);
  }
  std::unique_ptr<optimisers_state> made(new optimisers_state{host, opt::State(choose, model, {.memory = host.get()})});
  opt::State::Data::of(made->state).optimiser.speak(opt::Optimiser::Language::c);
  *out = made.release();
}

opt::Optimiser& optimiser_of(const optimisers_state* handle) {
  return opt::State::Data::of(state_of(handle)).optimiser;
}

// Checks leaf and stage; the span stays valid as long as the state.
std::span<double> clock_of(const optimisers_state* handle, std::int64_t leaf, std::int32_t stage, std::int32_t clock) {
  (void)leaf_of(handle, leaf).rule(stage);
  const auto values = optimiser_of(handle).clock(static_cast<std::uint32_t>(leaf), stage);
  if (clock < 0 || std::size_t(clock) >= values.size())
    refuse("clock: there are " + std::to_string(values.size()) + ", got index " + std::to_string(clock));
  return values;
}

optimisers_slot slot_of(const opt::SlotView& view, std::int64_t size) {
  return {sizeof(optimisers_slot), view.name, view.data, size, static_cast<std::int32_t>(view.dtype)};
}

}  // namespace

const char* optimisers_version(void) { return opt::version; }
int32_t optimisers_abi(void) { return OPTIMISERS_ABI; }

const char* optimisers_isa(void) {
  const char* level = nullptr;
  (void)guarded([&] { level = opt::isa_choice().chosen.c_str(); });
  return level;
}

const char* optimisers_last_error(void) { return last.message.c_str(); }
const char* optimisers_last_error_leaf(void) { return last.leaf.c_str(); }

optimisers_status optimisers_create(const char* rule, const optimisers_array* leaves, size_t count,
                                    const optimisers_memory* memory, optimisers_state** out) {
  return guarded([&] {
    const opt::Program program = opt::parse_program(&required(rule, "rule"));
    create([&](const std::string&) { return std::optional(program); }, leaves, count, memory, out);
  });
}

optimisers_status optimisers_create_each(const char* const* rules, const optimisers_array* leaves, size_t count,
                                         const optimisers_memory* memory, optimisers_state** out) {
  return guarded([&] {
    if (count > 0) (void)required(rules, "rules");
    std::size_t next = 0;  // setup asks once for each leaf, in order
    create(
        [&](const std::string&) -> std::optional<opt::Program> {
          const char* text = rules[next++];
          if (text == nullptr) return std::nullopt;
          return opt::parse_program(text);
        },
        leaves, count, memory, out);
  });
}

optimisers_status optimisers_copy(const optimisers_state* state, optimisers_state** out) {
  return guarded([&] {
    optimisers_state*& to = required(out, "out");
    to = new optimisers_state(required(state, "state"));
  });
}

void optimisers_destroy(optimisers_state* state) { delete state; }

optimisers_status optimisers_update(optimisers_state* state, const optimisers_array* x, size_t x_count,
                                    const optimisers_array* dx, size_t dx_count) {
  return guarded([&] { state_of(state).update(spans_of(x, x_count, false), spans_of(dx, dx_count, true)); });
}

optimisers_status optimisers_update_with(optimisers_state* state, const optimisers_array* x, size_t x_count,
                                         const optimisers_array* dx, size_t dx_count,
                                         const optimisers_update_options* options) {
  if (options == nullptr) return optimisers_update(state, x, x_count, dx, dx_count);
  return guarded([&] {
    constexpr std::size_t first_version = offsetof(optimisers_update_options, non_finite);
    optimisers_update_options given{};
    if (options->struct_size < first_version)
      refuse("options: struct_size is " + std::to_string(options->struct_size) + ", set it to sizeof of the structure");
    std::memcpy(&given, options, std::min(options->struct_size, sizeof given));
    if (given.non_finite < OPTIMISERS_PROPAGATE || given.non_finite > OPTIMISERS_SKIP)
      refuse("options: " + std::to_string(given.non_finite) + " is no optimisers_non_finite");
    opt::UpdateOptions o{.non_finite = static_cast<opt::NonFinite>(given.non_finite), .scale = given.scale};
    if (given.reduce_norm != nullptr)
      o.reduce_norm = [&](double norm, double p, const std::string& leaf) {
        return given.reduce_norm(given.self, norm, p, leaf.c_str());
      };
    state_of(state).update(spans_of(x, x_count, false), spans_of(dx, dx_count, true), o);
  });
}

optimisers_status optimisers_flush(optimisers_state* state, const optimisers_array* x, size_t x_count) {
  return guarded([&] { state_of(state).flush(spans_of(x, x_count, false)); });
}

optimisers_status optimisers_get_seen(const optimisers_state* state, optimisers_seen* out) {
  return guarded([&] {
    optimisers_seen& to = required(out, "out");
    const opt::State& s = state_of(state);
    const std::optional<double> norm = s.norm();
    give(to, "out", sizeof(optimisers_seen),
         {sizeof(optimisers_seen), s.skipped(), norm.has_value(), norm.value_or(0.0)});
  });
}

optimisers_status optimisers_save(optimisers_state* state, const char* path, const optimisers_array* x,
                                  size_t x_count) {
  return guarded([&] {
    const std::string to = &required(path, "path");
    if (x == nullptr) return state_of(state).save(to);
    state_of(state).save(to, spans_of(x, x_count, false));
  });
}

optimisers_status optimisers_load(optimisers_state* state, const char* path, const optimisers_array* x, size_t x_count,
                                  const optimisers_load_options* options) {
  return guarded([&] {
    const std::string from = &required(path, "path");
    opt::LoadOptions o;
    if (options != nullptr) {
      if (options->struct_size < sizeof *options)
        refuse("options: struct_size is " + std::to_string(options->struct_size) +
               ", set it to sizeof of the structure");
      if (options->renames > 0) (void)required(options->rename, "rename");
      for (std::size_t i = 0; i < options->renames; ++i)
        o.rename.emplace_back(&required(options->rename[2 * i], "rename"),
                              &required(options->rename[2 * i + 1], "rename"));
      o.partial = options->partial != 0;
      o.cast = options->cast != 0;
    }
    if (x == nullptr) state_of(state).load(from, o);
    else state_of(state).load(from, spans_of(x, x_count, false), o);
  });
}

optimisers_status optimisers_adjust_stage(optimisers_state* state, int64_t leaf, int32_t stage, const char* fields) {
  return guarded([&] {
    const opt::Fields parsed = opt::parse_fields(&required(fields, "fields"));
    if (stage < 0) refuse("stage: expected an index, got " + std::to_string(stage));
    leaf_of(state, leaf).adjust(parsed, stage);
  });
}

optimisers_status optimisers_adjust(optimisers_state* state, int64_t leaf, const char* field, double value) {
  return guarded([&] {
    const opt::Fields fields{{&required(field, "field"), value}};
    if (leaf == OPTIMISERS_ALL) state_of(state).adjust(fields);
    else leaf_of(state, leaf).adjust(fields);
  });
}

optimisers_status optimisers_adjust_text(optimisers_state* state, int64_t leaf, const char* fields) {
  return guarded([&] {
    const opt::Fields parsed = opt::parse_fields(&required(fields, "fields"));
    if (leaf == OPTIMISERS_ALL) state_of(state).adjust(parsed);
    else leaf_of(state, leaf).adjust(parsed);
  });
}

optimisers_status optimisers_get_field(const optimisers_state* state, int64_t leaf, int32_t stage, const char* field,
                                       double values[2], int32_t* count) {
  return guarded([&] {
    double* to = &required(values, "values");
    std::int32_t& n = required(count, "count");
    const opt::RuleValue rule = leaf_of(state, leaf).rule(stage);
    const opt::FieldInfo* info = rule.info().field(&required(field, "field"));
    if (info == nullptr) refuse(std::string(rule.info().text.name) + " has no field \"" + field + "\"");
    const opt::Value value = rule.get(*info);
    n = std::holds_alternative<opt::Pair>(value) ? 2 : 1;
    if (const auto* pair = std::get_if<opt::Pair>(&value)) {
      to[0] = pair->first;
      to[1] = pair->second;
    } else if (const auto* number = std::get_if<double>(&value)) {
      to[0] = *number;
    } else if (const auto* flag = std::get_if<bool>(&value)) {
      to[0] = *flag ? 1 : 0;
    } else {
      to[0] = std::get<std::string>(value) == "global" ? 1 : 0;
    }
  });
}

optimisers_status optimisers_freeze(optimisers_state* state, int64_t leaf, int32_t frozen) {
  return guarded([&] {
    if (leaf == OPTIMISERS_ALL) return frozen != 0 ? state_of(state).freeze() : state_of(state).thaw();
    frozen != 0 ? leaf_of(state, leaf).freeze() : leaf_of(state, leaf).thaw();
  });
}

int64_t optimisers_leaf_count(const optimisers_state* state) {
  return state == nullptr ? 0 : static_cast<int64_t>(state->state.size());
}

optimisers_status optimisers_find_leaf(const optimisers_state* state, const char* name, int64_t* leaf) {
  return guarded([&] {
    std::int64_t& to = required(leaf, "leaf");
    to = state_of(state)[&required(name, "name")].index();
  });
}

optimisers_status optimisers_get_leaf(const optimisers_state* state, int64_t leaf, optimisers_leaf* out) {
  return guarded([&] {
    optimisers_leaf& to = required(out, "out");
    const opt::Leaf l = leaf_of(state, leaf);
    const bool master = optimiser_of(state).master(static_cast<std::uint32_t>(leaf)).has_value();
    give(to, "out", sizeof(optimisers_leaf),
         {sizeof(optimisers_leaf), l.name().c_str(), l.size(), static_cast<std::int32_t>(l.dtype()), l.frozen(),
          l.stages(), master});
  });
}

optimisers_status optimisers_get_stage(const optimisers_state* state, int64_t leaf, int32_t stage,
                                       optimisers_stage* out) {
  return guarded([&] {
    optimisers_stage& to = required(out, "out");
    const opt::RuleValue rule = leaf_of(state, leaf).rule(stage);
    give(to, "out", sizeof(optimisers_stage),
         {sizeof(optimisers_stage), rule.info().text.name, rule.slot_count(), rule.info().clock_size,
          static_cast<std::int32_t>(rule.info().fields.size())});
  });
}

optimisers_status optimisers_get_field_info(const optimisers_state* state, int64_t leaf, int32_t stage, int32_t field,
                                            optimisers_field* out) {
  return guarded([&] {
    optimisers_field& to = required(out, "out");
    const opt::RuleValue rule = leaf_of(state, leaf).rule(stage);
    const auto fields = rule.info().fields;
    if (field < 0 || std::size_t(field) >= fields.size())
      refuse("field: " + std::string(rule.info().text.name) + " has " + std::to_string(fields.size()) + ", got index " +
             std::to_string(field));
    const opt::FieldInfo& f = fields[std::size_t(field)];
    give(to, "out", sizeof(optimisers_field),
         {sizeof(optimisers_field), f.name, f.doc, static_cast<std::int32_t>(f.kind), f.structural});
  });
}

optimisers_status optimisers_get_rule(const optimisers_state* state, int64_t leaf, char* text, size_t size,
                                      size_t* needed) {
  return guarded([&] {
    const opt::Leaf l = leaf_of(state, leaf);
    opt::Program program{{}, optimiser_of(state).spec(static_cast<std::uint32_t>(leaf)).program.master};
    for (int s = 0; s < l.stages(); ++s) program.stages.push_back(l.rule(s));
    const std::string written = opt::to_text(program);
    if (needed != nullptr) *needed = written.size() + 1;
    if (text == nullptr && size == 0) return;
    (void)required(text, "text");
    if (size <= written.size())
      refuse("text: the rule takes " + std::to_string(written.size() + 1) + " bytes, there are " +
             std::to_string(size));
    std::memcpy(text, written.c_str(), written.size() + 1);
  });
}

optimisers_status optimisers_get_slot(const optimisers_state* state, int64_t leaf, int32_t stage, int32_t slot,
                                      optimisers_slot* out) {
  return guarded([&] {
    optimisers_slot& to = required(out, "out");
    const opt::Leaf l = leaf_of(state, leaf);
    const auto slots = l.slots(stage);
    if (slot < 0 || std::size_t(slot) >= slots.size())
      refuse("slot: there are " + std::to_string(slots.size()) + ", got index " + std::to_string(slot));
    give(to, "out", sizeof(optimisers_slot), slot_of(slots[std::size_t(slot)], l.size()));
  });
}

optimisers_status optimisers_get_master(const optimisers_state* state, int64_t leaf, optimisers_slot* out) {
  return guarded([&] {
    optimisers_slot& to = required(out, "out");
    const opt::Leaf l = leaf_of(state, leaf);
    const auto master = optimiser_of(state).master(static_cast<std::uint32_t>(leaf));
    if (!master) refuse("master: \"" + l.name() + "\" has no master copy");
    give(to, "out", sizeof(optimisers_slot), slot_of(*master, l.size()));
  });
}

optimisers_status optimisers_get_clock(const optimisers_state* state, int64_t leaf, int32_t stage, int32_t clock,
                                       const char** name, double* value) {
  return guarded([&] {
    double& to = required(value, "value");
    const auto values = clock_of(state, leaf, stage, clock);
    if (name != nullptr) *name = leaf_of(state, leaf).rule(stage).info().clock[std::size_t(clock)];
    to = values[std::size_t(clock)];
  });
}

optimisers_status optimisers_set_clock(optimisers_state* state, int64_t leaf, int32_t stage, int32_t clock,
                                       double value) {
  return guarded([&] {
    if (!std::isfinite(value)) refuse("clock: expected a finite number");
    const auto now = clock_of(state, leaf, stage, clock);
    std::vector<double> values(now.begin(), now.end());
    values[std::size_t(clock)] = value;
    optimiser_of(state).set_clock(std::uint32_t(leaf), stage, values);
  });
}

optimisers_status optimisers_set_num_threads(int32_t threads) {
  return guarded([&] { opt::set_num_threads(threads); });
}
int32_t optimisers_get_num_threads(void) {
  int32_t threads = 0;
  (void)guarded([&] { threads = opt::get_num_threads(); });
  return threads;
}
void optimisers_shutdown_threads(void) { opt::shutdown_threads(); }
optimisers_status optimisers_set_executor(optimisers_run run, void* self, int32_t threads) {
  return guarded([&] { run == nullptr ? opt::set_executor({}) : opt::set_executor({run, self, threads}); });
}
