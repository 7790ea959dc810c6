// tree.cpp: the shape of a model: its places, and the names of its nodes.
#include "tree/tree.hpp"

#include <algorithm>
#include <unordered_set>

#include "text.hpp"

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
  for (std::uint32_t n = 1; n < nodes.size(); ++n)
    if (is_container(nodes[n].kind) && nodes[n].live()) containers.push_back(n);
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
  if (!plain(0) || !std::all_of(containers.begin(), containers.end(), plain)) return;
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

std::vector<std::uint32_t> TreeSpec::leaves_below(std::uint32_t node) const {
  if (is_mark(node)) return marks[node - nodes.size()].leaves;
  std::vector<std::uint32_t> leaves;
  std::unordered_set<std::uint32_t> seen;
  for (std::uint32_t p = nodes[node].place_begin; p < nodes[node].place_end; ++p)
    if (!tied() || seen.insert(places[p].leaf).second) leaves.push_back(places[p].leaf);
  return leaves;
}

constexpr std::uint32_t few = 8;  // children, to look through one by one

std::uint32_t TreeSpec::child(std::uint32_t n, PyObject* key) const {
  const Node& node = nodes[n];
  if (by_position(node.kind)) {
    if (!PyIndex_Check(key)) return 0;
    Py_ssize_t i = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if (i == -1 && PyErr_Occurred()) {
      PyErr_Clear();
      return 0;
    }
    if (i < 0) i += node.count;
    return i >= 0 && i < static_cast<Py_ssize_t>(node.count) ? node.first + static_cast<std::uint32_t>(i) : 0;
  }
  if (node.count > few && (PyUnicode_CheckExact(key) || PyLong_CheckExact(key))) return child_by_index(n, key);
  for (std::uint32_t i = node.first; i < node.first + node.count; ++i)
    if (same_key(nodes[i].key, key)) return i;
  for (std::uint32_t i = node.first; i < node.first + node.count; ++i) {
    const int equal = PyObject_RichCompareBool(nodes[i].key, key, Py_EQ);
    if (equal < 0) throw nb::python_error();
    if (equal == 1) return i;
  }
  return 0;
}

// As the model's own dict would find it: who reads all leaves one by one asks as often as there are keys.
std::uint32_t TreeSpec::child_by_index(std::uint32_t n, PyObject* key) const {
  nb::object& index = index_[n];
  if (!index.is_valid()) {
    nb::dict children;
    for (std::uint32_t i = nodes[n].first; i < nodes[n].first + nodes[n].count; ++i)
      children[nb::handle(nodes[i].key)] = i;
    index = std::move(children);
  }
  PyObject* found = PyDict_GetItemWithError(index.ptr(), key);
  if (found == nullptr && PyErr_Occurred()) throw nb::python_error();
  return found == nullptr ? 0 : static_cast<std::uint32_t>(PyLong_AsUnsignedLong(found));
}

nb::object TreeSpec::key(std::uint32_t n) const {
  return nodes[n].key ? nb::borrow(nodes[n].key) : nb::int_(n - nodes[nodes[n].parent].first);
}

nb::tuple TreeSpec::path(std::uint32_t n) const {
  if (is_mark(n)) return nb::make_tuple(marks[n - nodes.size()].marker);
  nb::list keys;
  for (; n != 0; n = nodes[n].parent) keys.append(key(n));
  keys.attr("reverse")();
  return nb::tuple(keys);
}

std::string TreeSpec::text(std::uint32_t n) const {
  constexpr std::size_t most = 64, kept = 8;
  if (n == 0) return "x";
  if (is_mark(n)) return repr_text(marks[n - nodes.size()].marker);
  std::vector<std::uint32_t> way;
  for (; n != 0; n = nodes[n].parent) way.push_back(n);
  std::reverse(way.begin(), way.end());
  std::string text;
  for (std::size_t i = 0; i < way.size(); ++i) {
    if (way.size() > most && i == kept) {
      i = way.size() - kept;
      text += ".(" + std::to_string(way.size() - 2 * kept) + " more)";
    }
    if (!text.empty()) text += '.';
    text += str_text(key(way[i]));
  }
  return text;
}

}  // namespace optimisers::python
