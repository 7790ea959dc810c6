// number_text.hpp: numbers in messages and rules, with a point whatever the program's locale has in its place.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <string>

#include "environment.hpp"

namespace optimisers::inline OPT_ABI {

// What printf made of a number. Some locales' separator takes several bytes.
inline std::string with_a_point(const char* printed) {
  std::string text;
  for (const char* c = printed; *c != '\0'; ++c) {
    const bool ours = (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || *c == '-' || *c == '+';
    if (ours) text += *c;
    else if (text.empty() || text.back() != '.') text += '.';
  }
  return text;
}

// The shortest that reads back as the same number.
inline std::string number_text(double a) {
  const DefaultNumbers as_usual;
  char s[32];
  for (int digits = 1; digits <= 17; ++digits) {
    std::snprintf(s, sizeof s, "%.*g", digits, a);
    if (std::strtod(s, nullptr) == a) break;
  }
  return with_a_point(s);
}

}  // namespace optimisers::inline OPT_ABI
