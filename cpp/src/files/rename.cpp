// rename.cpp: the beginning of a dotted path matched and replaced.
#include "files/rename.hpp"

#include <algorithm>
#include <vector>

#include "refuse.hpp"

namespace optimisers::inline OPT_ABI::files {
namespace {

using Parts = std::vector<std::string_view>;

Parts split(std::string_view path) {
  Parts parts;
  while (!path.empty()) {
    const std::size_t dot = path.find('.');
    parts.push_back(path.substr(0, dot));
    path = dot == std::string_view::npos ? std::string_view{} : path.substr(dot + 1);
  }
  return parts;
}

bool is_wild(std::string_view part) { return part == "*" || part == "**"; }

// How many components of the path the pattern takes, and for each of its wildcards how many; -1: it does not fit.
int matched(const Parts& path, std::size_t at, const Parts& pattern, std::size_t p, std::vector<std::size_t>& taken) {
  if (p == pattern.size()) return int(at);
  if (pattern[p] != "**") {
    if (at == path.size() || (pattern[p] != "*" && pattern[p] != path[at])) return -1;
    if (pattern[p] == "*") taken.push_back(1);
    const int end = matched(path, at + 1, pattern, p + 1, taken);
    if (end < 0 && pattern[p] == "*") taken.pop_back();
    return end;
  }
  for (std::size_t n = 0; at + n <= path.size(); ++n) {
    taken.push_back(n);
    const int end = matched(path, at + n, pattern, p + 1, taken);
    if (end >= 0) return end;
    taken.pop_back();
  }
  return -1;
}

}  // namespace

std::optional<std::string> renamed(std::string_view path, std::string_view pattern, std::string_view replacement) {
  const Parts from = split(pattern), to = split(replacement), parts = split(path);
  const auto wild = [](const Parts& p) { return std::count_if(p.begin(), p.end(), is_wild); };
  if (wild(to) > wild(from) || std::count(from.begin(), from.end(), "**") > 4)
    refuse("loading: rename " + quoted(std::string(pattern)) + " to " + quoted(std::string(replacement)) +
           ": the new name has * that the old one lacks, or there are more than four **");
  std::vector<std::size_t> taken;
  const int end = matched(parts, 0, from, 0, taken);
  if (end < 0) return std::nullopt;
  std::string name;
  const auto add = [&](std::string_view part) { (name += name.empty() ? "" : ".") += part; };
  std::size_t at = 0, wildcard = 0, next = 0;  // next: the pattern's component behind the last wildcard used
  for (const std::string_view part : to) {
    if (!is_wild(part)) {
      add(part);
      continue;
    }
    for (; !is_wild(from[next]); ++next) ++at;
    for (std::size_t i = 0; i < taken[wildcard]; ++i) add(parts[at++]);
    ++wildcard, ++next;
  }
  for (std::size_t i = std::size_t(end); i < parts.size(); ++i) add(parts[i]);
  return name;
}

}  // namespace optimisers::inline OPT_ABI::files
