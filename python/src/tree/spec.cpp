// spec.cpp: marks, copies of specs, also with fewer leaves, and what they keep.
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

TreeSpec::~TreeSpec() { drop_objects(); }

int TreeSpec::visit_objects(visitproc visit, void* arg) const {
  for (const Node& node : nodes) Py_VISIT(node.key);
  for (const Mark& mark : marks) Py_VISIT(mark.marker.ptr());
  for (const auto& [node, index] : index_) Py_VISIT(index.ptr());
  for (const UntrainedValue& u : untrained) Py_VISIT(u.value.ptr());
  for (const auto& [node, name] : buffers) Py_VISIT(name.ptr());
  return 0;
}

void TreeSpec::drop_objects() {
  const std::map<std::uint32_t, nb::object> indices = std::move(index_);
  const std::vector<Mark> gone = std::move(marks);
  const std::vector<UntrainedValue> values = std::move(untrained);
  const auto names = std::move(buffers);
  std::vector<PyObject*> keys;
  for (Node& node : nodes)
    if (node.key != nullptr) keys.push_back(std::exchange(node.key, nullptr));
  for (PyObject* key : keys) Py_DECREF(key);
}

std::unique_ptr<TreeSpec> TreeSpec::copy() const {
  auto spec = std::make_unique<TreeSpec>();
  spec->nodes = nodes;
  for (Node& node : spec->nodes) Py_XINCREF(node.key);
  spec->places = places;
  spec->first_place = first_place;
  spec->containers = containers;
  spec->runs = runs;
  spec->marks = marks;
  spec->untrained = untrained;
  spec->idle = idle;
  spec->buffers = buffers;
  return spec;
}

std::unique_ptr<TreeSpec> TreeSpec::without(const std::vector<bool>& leaves) const {
  auto spec = std::make_unique<TreeSpec>();
  spec->nodes = nodes;
  for (Node& node : spec->nodes) Py_XINCREF(node.key);
  spec->untrained = untrained;
  spec->buffers = buffers;
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
