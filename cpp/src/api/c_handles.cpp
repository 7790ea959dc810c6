// c_handles.cpp: states made, copied and ended by their C handles; arrays read; errors, the version, threads.
#include <string_view>
#include <utility>

#include "api/c_api.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

OPT_THREAD_LOCAL Failure last;

static_assert(int(OPTIMISERS_FILE) == int(ErrorKind::file) + 1 &&
              int(OPTIMISERS_MEMORY) == int(ErrorKind::memory) + 1 && int(OPTIMISERS_BUSY) == int(ErrorKind::busy) + 1);
static_assert(int(OPTIMISERS_RAISE) == int(NonFinite::raise) && int(OPTIMISERS_SKIP) == int(NonFinite::skip));
static_assert(int(OPTIMISERS_WORD) == int(FieldKind::word) && int(OPTIMISERS_COUNT) == int(FieldKind::count));
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
static_assert(says(version, OPTIMISERS_VERSION_MAJOR, OPTIMISERS_VERSION_MINOR, OPTIMISERS_VERSION_PATCH));
static_assert(int(OPTIMISERS_COMPLEX128) == int(DType::complex128));

// A message of the core as one of the C function `call`.
std::string in_c(const char* call, const std::string& message) {
  std::string text = message;
  for (const std::string_view ours : {"setup: ", "update: ", "flush: ", "adjust: ", "thaw: ", "set_clock: ", "save: ",
                                      "load: ", "saving: ", "loading: ", "set_num_threads: ", "set_executor: "})
    if (text.starts_with(ours)) {
      text.erase(0, ours.size());
      break;
    }
  for (const auto& [ours, here] :
       {std::pair<std::string_view, std::string_view>{"call setup again", "create the state again"},
        {"call setup with", "create the state with"},
        {"give the leaf that shape at setup", "give the leaf that shape when it is created"},
        {"use setup, and load", "use optimisers_create, and load"}})
    if (const auto at = text.find(ours); at != std::string::npos) text.replace(at, ours.size(), here);
  return std::string(call) + ": " + text;
}

AnySpan span_of(const optimisers_array& a, bool may_be_missing) {
  constexpr std::int64_t largest = std::int64_t(1) << 58;
  if (a.data == nullptr && (may_be_missing || a.size != 0)) {
    if (may_be_missing) return {};
    refuse("array: data is NULL for " + std::to_string(a.size) + " elements");
  }
  if (a.dtype < OPTIMISERS_FLOAT16 || a.dtype > OPTIMISERS_COMPLEX128)
    throw Error(ErrorKind::type, "array: " + std::to_string(a.dtype) + " is no optimisers_dtype");
  if (a.size < 0 || a.size > largest) refuse("array: size " + std::to_string(a.size) + " is out of range");
  return {a.data, a.size, static_cast<DType>(a.dtype), true};
}

}  // namespace

optimisers_status failed(const char* call, const Failure& failure) noexcept {
  const ErrorKind kind = failure.kind;
  if (const auto put = attempt([&] { last = {kind, in_c(call, failure.message), failure.leaf}; }); !put)
    last = put.error();
  return static_cast<optimisers_status>(int(last.kind) + 1);
}

Leaf leaf_of(const optimisers_state* handle, std::int64_t leaf) {
  State& state = state_of(handle);
  if (leaf < 0) refuse("leaf: expected an index, got " + std::to_string(leaf));
  return state.leaf(static_cast<std::size_t>(leaf));
}

std::vector<AnySpan> spans_of(const optimisers_array* arrays, std::size_t count, bool may_be_missing) {
  if (count > 0) (void)required(arrays, "arrays");
  if (count > PTRDIFF_MAX / sizeof(AnySpan)) refuse("arrays: a count of " + std::to_string(count) + " is out of range");
  std::vector<AnySpan> spans(count);
  for (std::size_t i = 0; i < count; ++i) spans[i] = span_of(arrays[i], may_be_missing);
  return spans;
}

namespace {

Model model_of(const optimisers_array* arrays, std::size_t count) {
  const auto spans = spans_of(arrays, count, false);
  std::vector<Named> leaves;
  for (std::size_t i = 0; i < count; ++i) {
    const optimisers_array& a = arrays[i];
    Named leaf{a.name != nullptr ? a.name : std::to_string(i), spans[i]};
    if (a.ndim < 0 || a.ndim > max_ndim)
      refuse("array: ndim is " + std::to_string(a.ndim) + ", expected 0 to " + std::to_string(max_ndim));
    if (a.ndim > 0) leaf.shape.assign(&required(a.shape, "shape"), a.shape + a.ndim);
    leaves.push_back(std::move(leaf));
  }
  return Model(std::move(leaves));
}

void create(const State::Chooser& choose, const optimisers_array* leaves, std::size_t count,
            const optimisers_memory* memory, optimisers_state** out) {
  (void)required(out, "out");
  const Model model = model_of(leaves, count);
  std::shared_ptr<HostMemory> host;
  if (memory != nullptr) {
    if (memory->allocate == nullptr || memory->release == nullptr)
      refuse("memory: allocate and release must not be NULL");
    host = std::make_shared<HostMemory>(*memory);
  }
  std::unique_ptr<optimisers_state> made(new optimisers_state{host, State(choose, model, {.memory = host.get()})});
  State::Data::of(made->state).optimiser.speak(Optimiser::Language::c);
  *out = made.release();
}

}  // namespace
}  // namespace optimisers::inline OPT_ABI

namespace opt = optimisers;
using opt::guarded;
using opt::refuse;
using opt::required;

const char* optimisers_version(void) { return opt::version; }
int32_t optimisers_abi(void) { return OPTIMISERS_ABI; }

const char* optimisers_isa(void) {
  const char* level = nullptr;
  (void)guarded(__func__, [&] { level = opt::isa_choice().chosen.c_str(); });
  return level;
}

const char* optimisers_last_error(void) { return opt::last.message.c_str(); }
const char* optimisers_last_error_leaf(void) { return opt::last.leaf.c_str(); }

optimisers_status optimisers_create(const char* rule, const optimisers_array* leaves, size_t count,
                                    const optimisers_memory* memory, optimisers_state** out) {
  return guarded(__func__, [&] {
    const opt::Program program = opt::parse_program(&required(rule, "rule"));
    opt::create([&](const std::string&) { return std::optional(program); }, leaves, count, memory, out);
  });
}

optimisers_status optimisers_create_each(const char* const* rules, const optimisers_array* leaves, size_t count,
                                         const optimisers_memory* memory, optimisers_state** out) {
  return guarded(__func__, [&] {
    if (count > 0) (void)required(rules, "rules");
    std::size_t next = 0;  // setup asks once for each leaf, in order
    opt::create(
        [&](const std::string&) -> std::optional<opt::Program> {
          const char* text = rules[next++];
          if (text == nullptr) return std::nullopt;
          return opt::parse_program(text);
        },
        leaves, count, memory, out);
  });
}

optimisers_status optimisers_copy(const optimisers_state* state, optimisers_state** out) {
  return guarded(__func__, [&] {
    optimisers_state*& to = required(out, "out");
    to = new optimisers_state(required(state, "state"));
  });
}

void optimisers_destroy(optimisers_state* state) { delete state; }

optimisers_status optimisers_set_num_threads(int32_t threads) {
  return guarded(__func__, [&] { opt::set_num_threads(threads); });
}
int32_t optimisers_get_num_threads(void) {
  int32_t threads = 0;
  (void)guarded(__func__, [&] { threads = opt::get_num_threads(); });
  return threads;
}
void optimisers_shutdown_threads(void) { opt::shutdown_threads(); }
optimisers_status optimisers_set_executor(optimisers_run run, void* self, int32_t threads) {
  return guarded(__func__, [&] { run == nullptr ? opt::set_executor({}) : opt::set_executor({run, self, threads}); });
}
