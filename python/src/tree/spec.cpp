// spec.cpp: marks, pickling, and specs with fewer leaves.
#include "errors.hpp"
#include "tree/tree.hpp"

namespace optimisers::python {

void TreeSpec::check_part(std::uint32_t node, const char* call) const {
  if (is_mark(node)) [[unlikely]]
    value_error(std::string(call) + ": marked leaves are no part of a model; update the whole, or a part of it");
}

nb::list TreeSpec::mark_states() const {
  nb::list states;
  for (const Mark& mark : marks) {
    nb::list leaves;
    for (std::uint32_t leaf : mark.leaves) leaves.append(leaf);
    states.append(nb::make_tuple(mark.marker, leaves));
  }
  return states;
}

void TreeSpec::take_marks(const nb::list& states) {
  for (nb::handle item : states) {
    Mark mark{item[0], {}};
    for (nb::handle leaf : item[1]) mark.leaves.push_back(nb::cast<std::uint32_t>(leaf));
    marks.push_back(std::move(mark));
  }
}

nb::tuple TreeSpec::state() const {
  nb::list node_states, place_states;
  for (const Node& node : nodes)
    node_states.append(nb::make_tuple(static_cast<int>(node.kind), node.key ? nb::borrow(node.key) : nb::none(),
                                      node.key != nullptr, node.parent, node.first, node.count, node.end));
  for (const Place& place : places) {
    nb::list axes;
    for (int axis : place.axes) axes.append(axis);
    place_states.append(nb::make_tuple(place.leaf, axes));
  }
  return nb::make_tuple(node_states, place_states, mark_states());
}

std::shared_ptr<TreeSpec> TreeSpec::from_state(const nb::tuple& state) {
  auto spec = std::make_shared<TreeSpec>();
  for (nb::handle item : state[0]) {
    Node node;
    node.kind = static_cast<Kind>(nb::cast<int>(item[0]));
    if (nb::cast<bool>(item[2])) {
      node.key = nb::object(item[1]).release().ptr();
      if (PyUnicode_CheckExact(node.key)) PyUnicode_InternInPlace(&node.key);
    }
    node.parent = nb::cast<std::uint32_t>(item[3]);
    node.first = nb::cast<std::uint32_t>(item[4]);
    node.count = nb::cast<std::uint32_t>(item[5]);
    node.end = nb::cast<std::uint32_t>(item[6]);
    spec->nodes.push_back(node);
  }
  spec->number_places();
  spec->first_place.clear();
  std::uint32_t p = 0;
  for (nb::handle item : state[1]) {
    Place& place = spec->places.at(p);
    place.leaf = nb::cast<std::uint32_t>(item[0]);
    for (nb::handle axis : item[1]) place.axes.push_back(nb::cast<int>(axis));
    if (place.leaf == spec->first_place.size()) spec->first_place.push_back(p);
    ++p;
  }
  spec->take_marks(nb::cast<nb::list>(state[2]));
  return spec;
}

std::shared_ptr<TreeSpec> TreeSpec::without(const std::vector<bool>& leaves) const {
  auto spec = std::make_shared<TreeSpec>();
  spec->nodes = nodes;
  for (Node& node : spec->nodes) Py_XINCREF(node.key);
  for (const Place& place : places)
    if (leaves[place.leaf]) spec->nodes[place.node].kind = Kind::value;
  spec->number_places();
  spec->first_place.clear();
  std::vector<std::uint32_t> number(leaf_count(), std::uint32_t(-1));
  std::uint32_t p = 0;
  for (const Place& place : places) {
    if (leaves[place.leaf]) continue;
    if (number[place.leaf] == std::uint32_t(-1)) {
      number[place.leaf] = static_cast<std::uint32_t>(spec->first_place.size());
      spec->first_place.push_back(p);
    }
    spec->places[p].leaf = number[place.leaf];
    spec->places[p++].axes = place.axes;
  }
  return spec;
}

}  // namespace optimisers::python
