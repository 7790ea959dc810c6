// registry.hpp: the rules of rules/all.hpp with their types erased: what bindings, programs and tables read.
#pragma once
#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "optimisers/error.hpp"
#include "optimisers/kernel.hpp"

namespace optimisers::inline OPT_ABI {

// A hyperparameter's value as it comes from outside; integers come as doubles, enums by name.
using Value = std::variant<double, Pair, bool, std::string>;

enum class FieldKind : std::uint8_t { number, pair, count, boolean, word };
std::string_view name_of(FieldKind kind);
std::string_view name_of(Range range);  // "nonnegative"
std::string_view text_of(Range range);  // "[0, inf)"

struct FieldInfo {
  const char* name;
  FieldKind kind;
  Range range;
  const char* doc;
  bool structural;
  int offset;                          // in the rule's bytes
  std::span<const char* const> words;  // of a word, by value
};
std::string choices_of(const FieldInfo& field);  // "leaf" or "global", with the marks

struct SlotInfo {
  const char* name;
  bool real;
  int start;   // offset of the double it starts at, -1: zero
  int unless;  // offset of the flag that makes it start at zero all the same, -1: none
  bool at_x;   // it starts at the parameter
};

struct RuleInfo {
  int id;  // position in the library's registry; -1: a program's own rule
  Text text;
  int size, clock_size;  // bytes; doubles
  int min_slots;         // slots it has whatever its value
  std::span<const FieldInfo> fields;
  std::span<const SlotInfo> slots;  // all, conditional ones last
  std::span<const char* const> clock;
  std::array<std::byte, 64> defaults;
  std::array<double, 4> clock_start;
  const char* refuses_complex;  // reason, or null
  bool sees_gradient;           // its kernels find the gradient behind the slots
  int (*slot_count)(const void* rule);
  bool (*equal)(const void*, const void*);

  // Indexed by the real type of the step's scalars: 0 float, 1 double.
  std::array<int, 2> step_size;
  void (*tick[2])(const void* rule, double* clock, void* step);
  bool (*finite[2])(const void* rule);  // are all scalars of the first step?
  // Gating rules, null otherwise.
  bool (*open)(const double* clock);
  bool (*miss[2])(const void* rule, double* clock, void* step);
  bool (*flush[2])(const void* rule, double* clock, void* step, bool has_gradient);
  // Reducing rules, null otherwise.
  Norm (*norm)(const void* rule);
  bool (*rejects)(const void* rule, double norm);
  void (*finish[2])(const void* rule, void* step, double norm);

  // Summing rules, null otherwise.
  std::span<const char* const> sums;
  Scope (*sums_over)(const void* rule);
  void (*finish_sums[2])(const void* rule, double* clock, void* step, const double* sums, double elements);

  int shared_clock;  // so many of the clock's first numbers are of the whole state
  // Matrix rules, null otherwise.
  Matrices (*matrices)(const void* rule);
  Polynomial (*polynomial)(const void* rule);
  void (*shaped[2])(const void* rule, void* step, double out, double in);

  // Of a program's own rule: [all slots?][compute type].
  std::array<std::array<StageKernels, compute_count>, 2> own_kernels;

  const FieldInfo* field(std::string_view name) const;
  // Whether both describe one rule: by name and layout, since a process may hold the library, and its description of a
  // rule, more than once.
  bool same_rule(const RuleInfo& other) const;
  // And one arithmetic: programs' own rules may share a name and have different ones, in two files.
  bool same_kernels(const RuleInfo& other) const { return this == &other || (id >= 0 && same_rule(other)); }
  bool gating() const { return open != nullptr; }
  bool reducing() const { return norm != nullptr || summing(); }  // something is measured before it can go on
  bool summing() const { return sums_over != nullptr; }
  bool matrix() const { return matrices != nullptr; }
};

std::span<const RuleInfo> rule_registry();
const RuleInfo* find_rule(std::string_view name);  // null: there is none
// Throws Error(value) if this build of the library has left the rule out.
const RuleInfo& registered_rule(std::string_view name);

namespace detail {
[[noreturn]] void throw_contraction(const char* what);
}

// A value of any rule.
class RuleValue {
 public:
  explicit RuleValue(const RuleInfo& info) : info_(&info), bytes_(info.defaults) {}
  const RuleInfo& info() const { return *info_; }
  const void* data() const { return bytes_.data(); }
  int slot_count() const { return info_->slot_count(bytes_.data()); }

  Value get(const FieldInfo& field) const;
  // Throws Error(value or type) with rule, field, range and what came; the value is unchanged then.
  void set(const FieldInfo& field, const Value& value);
  void load(const void* bytes);  // the bytes of a rule of this type
  // Throws for the first field out of range (a required one that was never set).
  void check() const;
  // Which hyperparameter overflows where it is computed with (0 float, 1 double), itself or in what a step makes of it:
  // "eta is 1e+39, float32 ends at 3.40282e+38". Empty: none.
  std::string overflow(int real) const;

  friend bool operator==(const RuleValue& a, const RuleValue& b) {
    return a.info_->same_rule(*b.info_) && a.info_->equal(a.bytes_.data(), b.bytes_.data());
  }

 private:
  const RuleInfo* info_;
  alignas(8) std::array<std::byte, 64> bytes_;
};

}  // namespace optimisers::inline OPT_ABI
