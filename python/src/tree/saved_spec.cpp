// saved_spec.cpp: specs as plain Python objects and back. Of the nodes only kinds, keys and counts are kept: where each
// one stands follows from these, so that no numbers can point anywhere else.
#include <algorithm>

#include "saved.hpp"
#include "tree/tree.hpp"

namespace optimisers::python {
namespace {

// In a node's word, above its kind: it has a key; it is a value that is not marked as not trained; it is a parameter
// that required no gradient. The count is the next word.
constexpr std::uint32_t keyed = 1 << 8, untrained_value = 1 << 9, asleep = 1 << 10,
                        flags = keyed | untrained_value | asleep;

// Parents, first children and ends, as setup numbered them.
void lay_out(std::vector<Node>& nodes) {
  std::uint32_t next = 1;
  std::vector<std::uint32_t> open;
  if (is_container(nodes[0].kind)) open.push_back(0);
  while (!open.empty()) {
    const std::uint32_t n = open.back();
    Node& node = nodes[n];
    if (node.end != 0) {
      open.pop_back();
      node.end = next;
      continue;
    }
    if (node.count > nodes.size() - next)
      saved::refuse("node " + std::to_string(n) + " has " + std::to_string(node.count) + " children, and there are " +
                    std::to_string(nodes.size()) + " nodes");
    node.first = node.end = next;
    for (std::uint32_t i = 0; i < node.count; ++i) nodes[next + i].parent = n;
    for (std::uint32_t i = node.count; i-- > 0;)
      if (is_container(nodes[next + i].kind)) open.push_back(next + i);
    next += node.count;
  }
  if (next != nodes.size())
    saved::refuse("of " + std::to_string(nodes.size()) + " nodes " + std::to_string(nodes.size() - next) +
                  " are nobody's children");
}

void read_nodes(nb::handle words_object, nb::handle keys_object, std::vector<Node>& nodes) {
  const auto words = saved::numbers<std::uint32_t>(words_object, "the nodes");
  const nb::tuple keys = saved::items(keys_object, "the keys");
  if (words.empty() || words.size() % 2 != 0 || words.size() / 2 > INT32_MAX)
    saved::refuse("there are " + std::to_string(words.size()) + " numbers for nodes, expected two each");
  nodes.resize(words.size() / 2);
  std::size_t next_key = 0;
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    const std::uint32_t kind = words[2 * n] & ~flags;
    const std::string name = "node " + std::to_string(n);
    if (kind > static_cast<std::uint32_t>(last_kind))
      saved::refuse(name + " is of the unknown kind " + std::to_string(kind));
    nodes[n].kind = static_cast<Kind>(kind);
    nodes[n].count = words[2 * n + 1];
    nodes[n].watched = (words[2 * std::size_t{n}] & untrained_value) != 0;
    if (nodes[n].watched && nodes[n].kind != Kind::value) saved::refuse(name + " is no value, and is noted as one");
    if (nodes[n].count != 0 && !is_container(nodes[n].kind)) saved::refuse(name + " has children and is no container");
    if ((words[2 * n] & keyed) == 0) continue;
    if (next_key == keys.size())
      saved::refuse("there are " + std::to_string(keys.size()) + " keys, and more nodes have one");
    nodes[n].key = nb::object(keys[next_key++]).release().ptr();
    if (PyUnicode_CheckExact(nodes[n].key)) PyUnicode_InternInPlace(&nodes[n].key);
    if (PyObject_Hash(nodes[n].key) == -1) throw nb::python_error();
  }
  if (next_key != keys.size())
    saved::refuse("there are " + std::to_string(keys.size()) + " keys, and " + std::to_string(next_key) +
                  " nodes have one");
  lay_out(nodes);
  for (std::size_t n = 0; n < nodes.size(); ++n) {
    const bool has_key = n != 0 && !by_position(nodes[nodes[n].parent].kind);
    if (has_key != (nodes[n].key != nullptr))
      saved::refuse("node " + std::to_string(n) +
                    (has_key ? " lacks a key" : " has a key, and stands by its position"));
  }
}

// The leaf of each place; a leaf's number is how many there were before its first place.
void read_leaves(nb::handle object, TreeSpec& spec) {
  const auto leaves = saved::numbers<std::uint32_t>(object, spec.places.size(), "the places");
  spec.first_place.clear();
  for (std::uint32_t p = 0; p < leaves.size(); ++p) {
    if (leaves[p] > spec.first_place.size())
      saved::refuse("place " + std::to_string(p) + " is of leaf " + std::to_string(leaves[p]) +
                    ", and the leaves before it are " + std::to_string(spec.first_place.size()));
    spec.places[p].leaf = leaves[p];
    if (leaves[p] == spec.first_place.size()) spec.first_place.push_back(p);
  }
}

// [(place, axes)] of the tied places whose axes have another order.
void read_axes(nb::handle object, TreeSpec& spec) {
  for (nb::handle item : saved::items(object, "the axes")) {
    const nb::tuple pair = saved::items(item, 2, "the axes of a place");
    const auto last = static_cast<std::int64_t>(spec.places.size()) - 1;
    const auto p = static_cast<std::uint32_t>(saved::integer(pair[0], 0, last, "a place with axes"));
    Place& place = spec.places[p];
    if (spec.first_place[place.leaf] == p)
      saved::refuse("place " + std::to_string(p) + " has axes and is a leaf's first");
    place.axes.clear();
    for (nb::handle axis : saved::items(pair[1], "the axes of a place"))
      place.axes.push_back(static_cast<int>(saved::integer(axis, 0, max_ndim - 1, "an axis")));
  }
}

// [(what it was at setup, an int, bool or str or None)] of the values that are not marked, and [(node, name)] of
// buffers.
void read_untrained(nb::handle words_object, nb::handle values, nb::handle buffers, TreeSpec& spec) {
  const auto words = saved::numbers<std::uint32_t>(words_object, "the nodes");
  const nb::tuple items = saved::items(values, "the untrained values");
  std::size_t next = 0;
  for (std::uint32_t n = 0; n < spec.nodes.size(); ++n) {
    if ((words[2 * std::size_t{n}] & untrained_value) == 0) continue;
    if (next == items.size()) saved::refuse("there are fewer untrained values than nodes that are some");
    const nb::tuple item = saved::items(items[next++], 2, "an untrained value");
    const nb::object value = item[1];
    if (!value.is_none() && !PyLong_Check(value.ptr()) && !PyUnicode_CheckExact(value.ptr()))
      saved::refuse("an untrained value is neither an integer nor text");
    spec.untrained.push_back({n, (words[2 * std::size_t{n}] & asleep) != 0,
                              saved::text(item[0], "what an untrained value is"),
                              value.is_none() ? nb::object() : value});
  }
  if (next != items.size()) saved::refuse("there are more untrained values than nodes that are some");
  for (nb::handle item : saved::items(buffers, "the buffers")) {
    const nb::tuple pair = saved::items(item, 2, "a buffer");
    const auto last = static_cast<std::int64_t>(spec.nodes.size()) - 1;
    const auto node = static_cast<std::uint32_t>(saved::integer(pair[0], 0, last, "a buffer's node"));
    if (!PyUnicode_CheckExact(nb::handle(pair[1]).ptr())) saved::refuse("a buffer's name is no text");
    spec.buffers.emplace_back(node, pair[1]);
  }
}

}  // namespace

nb::tuple TreeSpec::state() const {
  std::vector<std::uint32_t> words, leaves;
  nb::list keys, axes_states;
  for (const Node& node : nodes) {
    words.push_back(static_cast<std::uint32_t>(node.kind) | (node.key != nullptr ? keyed : 0));
    if (node.kind == Kind::value && node.watched) words.back() |= untrained_value;
    words.push_back(node.count);
    if (node.key != nullptr) keys.append(nb::borrow(node.key));
  }
  for (std::uint32_t p = 0; p < places.size(); ++p) {
    leaves.push_back(places[p].leaf);
    if (places[p].axes.empty()) continue;
    nb::list axes;
    for (int axis : places[p].axes) axes.append(axis);
    axes_states.append(nb::make_tuple(p, axes));
  }
  nb::list values, names;
  for (const UntrainedValue& u : untrained) {
    if (u.asleep) words[2 * std::size_t{u.node}] |= asleep;
    values.append(nb::make_tuple(nb::str(u.what.c_str()), u.value.is_valid() ? u.value : nb::none()));
  }
  for (const auto& [node, name] : buffers) names.append(nb::make_tuple(node, name));
  return nb::make_tuple(saved::bytes_from(words), keys, saved::bytes_from(leaves), axes_states, mark_states(), values,
                        names);
}

std::unique_ptr<TreeSpec> TreeSpec::from_state(nb::handle state) {
  const nb::tuple parts = saved::items(state, 7, "the tree");
  auto spec = std::make_unique<TreeSpec>();
  read_nodes(parts[0], parts[1], spec->nodes);
  read_untrained(parts[0], parts[5], parts[6], *spec);
  spec->number_places();
  read_leaves(parts[2], *spec);
  read_axes(parts[3], *spec);
  spec->take_marks(parts[4]);
  return spec;
}

void TreeSpec::check_axes(const std::function<std::size_t(std::uint32_t)>& ndim_of) const {
  for (const Place& place : places) {
    if (place.axes.empty()) continue;
    const std::size_t ndim = ndim_of(place.leaf);
    std::vector<int> sorted = place.axes;
    std::sort(sorted.begin(), sorted.end());
    bool holds = sorted.size() == ndim;
    for (std::size_t i = 0; holds && i < ndim; ++i) holds = sorted[i] == static_cast<int>(i);
    if (!holds)
      saved::refuse("the axes at \"" + text(place.node) + "\" are no order of " + std::to_string(ndim) + " axes");
  }
}

void TreeSpec::take_marks(nb::handle states) {
  for (nb::handle item : saved::items(states, "the marks")) {
    const nb::tuple pair = saved::items(item, 2, "a mark");
    Mark mark{pair[0], {}};
    const std::int64_t last = static_cast<std::int64_t>(leaf_count()) - 1;
    for (nb::handle leaf : saved::items(pair[1], "the leaves of a mark"))
      mark.leaves.push_back(static_cast<std::uint32_t>(saved::integer(leaf, 0, last, "a marked leaf")));
    marks.push_back(std::move(mark));
  }
}

}  // namespace optimisers::python
