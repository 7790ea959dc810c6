// registry.cpp: derives the type-erased description of every rule from its header.
#include "optimisers/registry.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "environment.hpp"
#include "optimisers/describe.hpp"
#include "optimisers/rules/all.hpp"
#include "rules/number_text.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

template <class... R>
std::array<RuleInfo, sizeof...(R)> describe_all(std::tuple<R...>*) {
  int id = 0;
  return {detail::describe<R>(id++)...};
}

// ---- values

std::string value_text(const Value& value) {
  if (const auto* d = std::get_if<double>(&value)) return number_text(*d);
  if (const auto* p = std::get_if<Pair>(&value))
    return "(" + number_text(p->first) + ", " + number_text(p->second) + ")";
  if (const auto* b = std::get_if<bool>(&value)) return *b ? "True" : "False";
  return "\"" + std::get<std::string>(value) + "\"";
}

bool in_range(Range range, double a) {
  switch (range) {
    case Range::nonnegative:
      return std::isfinite(a) && a >= 0;
    case Range::positive:
      return std::isfinite(a) && a > 0;
    case Range::unit:
      return a >= 0 && a < 1;
    case Range::count:
      return a >= 1 && a <= 0x1p53 && a == std::floor(a);
    case Range::norm_order:
      return a != 0 && !std::isnan(a);
    default:
      return true;
  }
}

bool in_range(Range range, Pair a) {
  if (!std::isfinite(a.first) || !std::isfinite(a.second)) return false;
  if (range == Range::factors) return 0 < a.first && a.first <= 1 && 1 <= a.second;
  if (range == Range::ordered) return 0 <= a.first && a.first <= a.second;
  if (range == Range::interval) return a.first <= a.second;
  return in_range(range, a.first) && in_range(range, a.second);
}

std::string expectation(const FieldInfo& f) {
  switch (f.kind) {
    case FieldKind::number:
      return "a number in " + std::string(text_of(f.range));
    case FieldKind::pair:
      return f.range == Range::unit ? "a pair of numbers in [0, 1)" : "a pair with " + std::string(text_of(f.range));
    case FieldKind::count:
      return "an integer >= 1";
    case FieldKind::boolean:
      return "True or False";
    case FieldKind::word:
      return choices_of(f);
  }
  return {};
}

// Whether a step is computed from the field's value: everything but counts, switches and the order of a norm.
bool is_scalar(const FieldInfo& f) {
  return (f.kind == FieldKind::number || f.kind == FieldKind::pair) && f.range != Range::norm_order;
}
double magnitude_of(const Value& value) {
  if (const auto* pair = std::get_if<Pair>(&value)) return std::max(std::abs(pair->first), std::abs(pair->second));
  return std::get<double>(value);
}

template <class T>
void write(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof value);
}
template <class T>
T read(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

}  // namespace

std::string_view name_of(FieldKind kind) {
  constexpr std::string_view names[] = {"double", "pair", "int", "bool", "word"};
  return names[static_cast<int>(kind)];
}

std::string_view name_of(Range range) {
  constexpr std::string_view names[] = {"nonnegative", "positive", "unit",       "factors", "ordered",
                                        "interval",    "count",    "norm_order", "choice"};
  return names[static_cast<int>(range)];
}

std::string_view text_of(Range range) {
  constexpr std::string_view texts[] = {"[0, inf)",
                                        "(0, inf)",
                                        "[0, 1)",
                                        "0 < first <= 1 <= second",
                                        "0 <= first <= second",
                                        "first <= second",
                                        "1, 2, ...",
                                        "any real number but 0, or ±inf",
                                        ""};
  return texts[static_cast<int>(range)];
}

std::string choices_of(const FieldInfo& field) {
  std::string text;
  for (std::size_t i = 0; i < field.words.size(); ++i)
    text += (i == 0 ? "\"" : i + 1 == field.words.size() ? " or \"" : ", \"") + std::string(field.words[i]) + "\"";
  return text;
}

std::span<const RuleInfo> rule_registry() {
  return detail::made_once([] { return describe_all(static_cast<AllRules*>(nullptr)); });
}

const RuleInfo* find_rule(std::string_view name) {
  for (const RuleInfo& rule : rule_registry())
    if (name == rule.text.name) return &rule;
  return nullptr;
}

const RuleInfo& registered_rule(std::string_view name) {
  if (const RuleInfo* info = find_rule(name)) return *info;
  throw Error(ErrorKind::value, std::string(name) + " was left out when the library was built (OPTIMISERS_RULES)");
}

void detail::throw_contraction(const char* what) {
  throw Error(ErrorKind::value, std::string(what) +
                                    ": the file it is compiled in has flags that join products and sums into one "
                                    "rounding (-ffp-contract=fast), which changes results; give it -ffp-contract=off");
}

bool RuleInfo::same_rule(const RuleInfo& o) const {
  const auto same_field = [](const FieldInfo& a, const FieldInfo& b) {
    return std::string_view(a.name) == b.name && a.kind == b.kind && a.range == b.range && a.offset == b.offset &&
           a.structural == b.structural;
  };
  const auto same_slot = [](const SlotInfo& a, const SlotInfo& b) {
    return std::string_view(a.name) == b.name && a.real == b.real && a.start == b.start && a.at_x == b.at_x;
  };
  return this == &o ||
         (std::string_view(text.name) == o.text.name && (id < 0) == (o.id < 0) && size == o.size &&
          clock_size == o.clock_size && min_slots == o.min_slots && step_size == o.step_size &&
          sees_gradient == o.sees_gradient && sums.size() == o.sums.size() &&
          std::ranges::equal(fields, o.fields, same_field) && std::ranges::equal(slots, o.slots, same_slot));
}

const FieldInfo* RuleInfo::field(std::string_view name) const {
  for (const FieldInfo& f : fields)
    if (name == f.name) return &f;
  return nullptr;
}

Value RuleValue::get(const FieldInfo& f) const {
  const std::byte* at = bytes_.data() + f.offset;
  switch (f.kind) {
    case FieldKind::number:
      return read<double>(at);
    case FieldKind::pair:
      return read<Pair>(at);
    case FieldKind::count:
      return static_cast<double>(read<std::int64_t>(at));
    case FieldKind::boolean:
      return read<bool>(at);
    case FieldKind::word:
      return std::string(f.words[read<std::uint8_t>(at)]);
  }
  return {};
}

void RuleValue::set(const FieldInfo& f, const Value& value) {
  const DefaultFloats floats;  // flushed to zero, the smallest numbers would be out of range
  const auto fail = [&](ErrorKind kind) {
    throw Error(kind, std::string(info_->text.name) + ": " + f.name + " must be " + expectation(f) + ", got " +
                          value_text(value));
  };
  std::byte* at = bytes_.data() + f.offset;
  const auto* number = std::get_if<double>(&value);
  switch (f.kind) {
    case FieldKind::number:
      if (!number) fail(ErrorKind::type);
      if (!in_range(f.range, *number)) fail(ErrorKind::value);
      return write(at, *number);
    case FieldKind::count:
      if (!number) fail(ErrorKind::type);
      if (!in_range(f.range, *number)) fail(ErrorKind::value);
      return write(at, static_cast<std::int64_t>(*number));
    case FieldKind::pair: {
      const auto* pair = std::get_if<Pair>(&value);
      if (!pair) fail(ErrorKind::type);
      if (!in_range(f.range, *pair)) fail(ErrorKind::value);
      return write(at, *pair);
    }
    case FieldKind::boolean: {
      const auto* flag = std::get_if<bool>(&value);
      if (!flag) fail(ErrorKind::type);
      return write(at, *flag);
    }
    case FieldKind::word: {
      const auto* word = std::get_if<std::string>(&value);
      if (!word) fail(ErrorKind::type);
      const auto found = std::find(f.words.begin(), f.words.end(), std::string_view(*word));
      if (found == f.words.end()) fail(ErrorKind::value);
      return write(at, static_cast<std::uint8_t>(found - f.words.begin()));
    }
  }
}

void RuleValue::load(const void* bytes) { std::memcpy(bytes_.data(), bytes, static_cast<std::size_t>(info_->size)); }

void RuleValue::check() const {
  for (const FieldInfo& f : info_->fields) RuleValue(*this).set(f, get(f));
}

std::string RuleValue::overflow(int real) const {
  const DefaultFloats floats;
  const double largest = real == 0 ? double(std::numeric_limits<float>::max()) : std::numeric_limits<double>::max();
  const auto text = [&](const FieldInfo& f, const char* what) {
    char end[32];
    std::snprintf(end, sizeof end, "%.8g", largest);
    return std::string(f.name) + " is " + value_text(get(f)) + what + (real == 0 ? "float32" : "float64") +
           " holds (at most " + with_a_point(end) + ")";
  };
  for (const FieldInfo& f : info_->fields)
    if (is_scalar(f) && magnitude_of(get(f)) > largest) return text(f, ", more than ");
  if (info_->finite[real](bytes_.data())) return {};
  const auto to_blame = [&](const FieldInfo& f) {  // with its default nothing overflows
    RuleValue other(*this);
    std::copy_n(info_->defaults.data() + f.offset, f.kind == FieldKind::pair ? sizeof(Pair) : sizeof(double),
                other.bytes_.data() + f.offset);
    return is_scalar(f) && info_->finite[real](other.bytes_.data());
  };
  const auto found = std::find_if(info_->fields.begin(), info_->fields.end(), to_blame);
  return text(found == info_->fields.end() ? info_->fields.front() : *found, ", which makes a scalar more than ");
}

}  // namespace optimisers::inline OPT_ABI
