// names.cpp: the nodes of a spec by their keys, paths and texts.
#include <algorithm>
#include <unordered_set>

#include "text.hpp"
#include "tree/tree.hpp"

namespace optimisers::python {

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

const UntrainedValue* TreeSpec::untrained_at(std::uint32_t n) const {
  const auto less = [](const UntrainedValue& u, std::uint32_t node) { return u.node < node; };
  const auto found = std::lower_bound(untrained.begin(), untrained.end(), n, less);
  return found != untrained.end() && found->node == n ? &*found : nullptr;
}

bool TreeSpec::is_buffer(std::uint32_t n, PyObject* key) const {
  return std::any_of(buffers.begin(), buffers.end(),
                     [&](const auto& buffer) { return buffer.first == n && same_key(buffer.second.ptr(), key); });
}

std::string TreeSpec::listed_children(std::uint32_t n) const {
  constexpr std::uint32_t most = 10;
  std::string text;
  for (std::uint32_t i = 0; i < nodes[n].count && i < most; ++i)
    text += (i ? ", " : "") + repr_text(key(nodes[n].first + i));
  return nodes[n].count > most ? text + ", ..." : nodes[n].count == 0 ? "none" : text;
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
  if (n == 0) return "the model";
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
