// tree.cpp: the shape of a model: its places.
#include "tree/tree.hpp"

#include <algorithm>

namespace optimisers::python {

void TreeSpec::number_places() {
  places.clear();
  std::vector<std::uint32_t> open{0};
  std::vector<bool> entered(nodes.size());
  while (!open.empty()) {
    const std::uint32_t n = open.back();
    Node& node = nodes[n];
    if (entered[n]) {
      node.place_end = static_cast<std::uint32_t>(places.size());
      open.pop_back();
      continue;
    }
    entered[n] = true;
    node.place_begin = static_cast<std::uint32_t>(places.size());
    if (node.kind == Kind::leaf) places.push_back({n, static_cast<std::uint32_t>(places.size()), {}});
    for (std::uint32_t i = node.count; i-- > 0;) open.push_back(node.first + i);
  }
  containers.clear();
  idle.clear();
  for (std::uint32_t n = 0; n < nodes.size(); ++n) {
    if (!is_container(nodes[n].kind)) continue;
    nodes[n].watched = !nodes[n].live();
    if (n == 0) continue;
    if (nodes[n].live()) containers.push_back(n);
    else if (nodes[nodes[n].parent].live()) idle.push_back(n);
  }
  first_place.resize(places.size());
  for (std::uint32_t p = 0; p < places.size(); ++p) first_place[p] = p;
  find_runs();
}

void TreeSpec::find_runs() {
  constexpr std::uint32_t longest = 32;
  runs.clear();
  const auto plain = [&](std::uint32_t n) {
    return nodes[n].kind == Kind::dict || nodes[n].kind == Kind::list || nodes[n].kind == Kind::tuple;
  };
  const bool has_module = std::any_of(nodes.begin(), nodes.end(), [](const Node& n) { return n.kind == Kind::module; });
  if (has_module || !plain(0) || !std::all_of(containers.begin(), containers.end(), plain)) return;
  const auto add_runs_of = [&](std::uint32_t container) {
    const std::uint32_t first = nodes[container].first, end = first + nodes[container].count;
    for (std::uint32_t n = first, begin = first; n <= end; ++n) {
      const bool is_link = n < end && is_container(nodes[n].kind) && nodes[n].live();
      if (n < end && !is_link && n - begin < longest) continue;
      if (n != begin) runs.push_back({container, begin, n, nodes[begin].place_begin});
      begin = is_link ? n + 1 : n;
    }
  };
  add_runs_of(0);
  for (const std::uint32_t n : containers) add_runs_of(n);
  std::stable_sort(runs.begin(), runs.end(), [](const Run& l, const Run& r) { return l.place_begin < r.place_begin; });
}

}  // namespace optimisers::python
