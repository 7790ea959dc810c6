// rebuild.cpp: a model of the same classes with other leaves, children before parents.
#include <unordered_map>

#include "tree.hpp"

namespace optimisers::python {
namespace {

nb::object checked(PyObject* object) {
  if (object == nullptr) throw nb::python_error();
  return nb::steal(object);
}
void check(int status) {
  if (status != 0) throw nb::python_error();
}

// Where a new child goes in a copy of its container.
using Children = std::vector<std::pair<std::uint32_t, nb::object>>;

nb::object copied(PyObject* object) { return nb::module_::import_("copy").attr("copy")(nb::borrow(object)); }

nb::object new_dict(const TreeSpec& spec, PyObject* object, const Children& children) {
  const bool plain = PyDict_CheckExact(object);
  nb::object out = plain ? checked(PyDict_Copy(object)) : copied(object);
  for (const auto& [node, child] : children) check(PyObject_SetItem(out.ptr(), spec.nodes[node].key, child.ptr()));
  return out;
}

nb::object new_sequence(PyObject* object, Kind kind, std::uint32_t first, const Children& children) {
  nb::list items(nb::borrow(object));
  for (const auto& [node, child] : children) items[node - first] = child;
  nb::handle type(reinterpret_cast<PyObject*>(Py_TYPE(object)));
  if (kind == Kind::named_tuple) return type.attr("_make")(items);
  if (PyTuple_CheckExact(object)) return nb::tuple(items);
  if (kind == Kind::tuple) return type(items);
  if (PyList_CheckExact(object)) return items;
  nb::object out = copied(object);
  for (const auto& [node, child] : children) out[node - first] = child;
  return out;
}

// As object.__setattr__: frozen classes are set like others, and __post_init__ does not run again.
nb::object new_dataclass(const TreeSpec& spec, PyObject* object, const Children& children) {
  nb::object out = copied(object);
  for (const auto& [node, child] : children)
    check(PyObject_GenericSetAttr(out.ptr(), spec.nodes[node].key, child.ptr()));
  return out;
}

nb::object new_container(const TreeSpec& spec, std::uint32_t n, PyObject* object, const Children& children) {
  const Node& node = spec.nodes[n];
  if (node.kind == Kind::dict) return new_dict(spec, object, children);
  if (node.kind == Kind::dataclass) return new_dataclass(spec, object, children);
  return new_sequence(object, node.kind, node.first, children);
}

// The leaf's new array with the axes of one of its places.
nb::object at_place(const nb::object& array, const std::vector<int>& axes) {
  if (axes.empty()) return array;
  std::vector<int> inverse(axes.size());
  for (std::size_t i = 0; i < axes.size(); ++i) inverse[static_cast<std::size_t>(axes[i])] = static_cast<int>(i);
  return with_axes(array, inverse);
}

}  // namespace

nb::object with_axes(const nb::object& array, const std::vector<int>& axes) {
  nb::list order;
  for (int axis : axes) order.append(axis);
  return nb::hasattr(array, "permute") ? array.attr("permute")(order) : array.attr("transpose")(order);
}

nb::object rebuild(const TreeSpec& spec, std::uint32_t root, const std::vector<PyObject*>& objects,
                   const std::vector<nb::object>& leaves) {
  const Node& top = spec.nodes[root];
  if (!top.live()) return nb::borrow(objects[root]);
  const std::uint32_t nodes = top.end - top.first;
  std::vector<nb::object> made(nodes + 1);  // the root's last
  auto index = [&](std::uint32_t n) { return n == root ? nodes : n - top.first; };
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
    const Place& place = spec.places[p];
    made[index(place.node)] = at_place(leaves[place.leaf], place.axes);
  }
  std::unordered_map<PyObject*, nb::object> same;  // a container that stands at several places stays one
  Children children;
  auto make = [&](std::uint32_t n) {
    const Node& node = spec.nodes[n];
    if (!is_container(node.kind) || !node.live()) return;
    auto [known, is_new] = same.try_emplace(objects[n]);
    if (is_new) {
      children.clear();
      for (std::uint32_t c = node.first; c < node.first + node.count; ++c)
        if (spec.nodes[c].live()) children.emplace_back(c, made[index(c)]);
      nb::object out = new_container(spec, n, objects[n], children);
      known->second = out;
    }
    made[index(n)] = known->second;
  };
  for (std::uint32_t n = top.end; n-- > top.first;) make(n);
  make(root);
  return made[nodes];
}

}  // namespace optimisers::python
