// text.cpp: rules and programs as the text they are read from.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "environment.hpp"
#include "optimisers/parse.hpp"
#include "rules/number_text.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

// The fewest digits that read back as the same number, laid out as Python does.
std::string text_of_number(double a) {
  if (std::isinf(a)) return a < 0 ? "-inf" : "inf";
  char s[40];
  int decimals = 0;
  for (; decimals < 17; ++decimals) {
    std::snprintf(s, sizeof s, "%.*e", decimals, a);
    if (std::strtod(s, nullptr) == a) break;
  }
  const int exponent = a == 0 ? 0 : int(std::strtol(std::strchr(s, 'e') + 1, nullptr, 10));
  if (exponent < -4 || exponent >= 16) return with_a_point(s);
  std::snprintf(s, sizeof s, "%.*f", decimals - exponent > 1 ? decimals - exponent : 1, a);
  return with_a_point(s);
}

std::string text_of_value(const Value& value, FieldKind kind) {
  if (const auto* pair = std::get_if<Pair>(&value))
    return "(" + text_of_number(pair->first) + ", " + text_of_number(pair->second) + ")";
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "True" : "False";
  if (const auto* name = std::get_if<std::string>(&value)) return "\"" + *name + "\"";
  const double number = std::get<double>(value);
  return kind == FieldKind::count ? std::to_string(static_cast<long long>(number)) : text_of_number(number);
}

std::string text_of_stages(const Program& program) {
  if (program.stages.size() == 1) return to_text(program.stages.front());
  std::string text;
  for (const RuleValue& rule : program.stages) text += (text.empty() ? "" : ", ") + to_text(rule);
  return "OptimiserChain(" + text + ")";
}

}  // namespace

std::string to_text(const RuleValue& rule) {
  const DefaultNumbers numbers;
  std::string text;
  for (const FieldInfo& f : rule.info().fields)
    text += (text.empty() ? "" : ", ") + std::string(f.name) + "=" + text_of_value(rule.get(f), f.kind);
  return std::string(rule.info().text.name) + "(" + text + ")";
}

std::string to_text(const Program& program) {
  std::string stages = text_of_stages(program);
  if (!program.master) return stages;
  return "MixedPrecision(" + stages + ", dtype=\"" + std::string(name_of(*program.master)) + "\")";
}

}  // namespace optimisers::inline OPT_ABI
