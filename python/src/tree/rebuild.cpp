// rebuild.cpp: a model of the same classes with other leaves, children before parents.
#include <unordered_map>

#include "tree/classes.hpp"
#include "tree/torch_module.hpp"
#include "tree/tree.hpp"

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

nb::object new_registered(const TreeSpec& spec, PyObject* object, std::uint32_t first, const Children& children) {
  nb::object all = registered_children(object);
  for (const auto& [node, child] : children)
    if (PyList_CheckExact(all.ptr())) check(PySequence_SetItem(all.ptr(), node - first, child.ptr()));
    else check(PyObject_SetItem(all.ptr(), spec.nodes[node].key, child.ptr()));
  return registered_rebuild(object, all);
}

nb::object new_container(const TreeSpec& spec, std::uint32_t n, PyObject* object, const Children& children, Kind kind) {
  if (kind == Kind::dict) return new_dict(spec, object, children);
  if (kind == Kind::dataclass) return new_dataclass(spec, object, children);
  if (by_functions(kind)) return new_registered(spec, object, spec.nodes[n].first, children);
  if (kind == Kind::module) return new_dict(spec, nb::dict().ptr(), children);  // of a tree beside the model
  return new_sequence(object, kind, spec.nodes[n].first, children);
}
nb::object new_container(const TreeSpec& spec, std::uint32_t n, PyObject* object, const Children& children) {
  return new_container(spec, n, object, children, spec.nodes[n].kind);
}

// A named tuple's fields may stand in another order than the model's.
nb::object replaced_fields(const TreeSpec& spec, PyObject* object, const Children& children) {
  nb::dict fields;
  for (const auto& [node, child] : children) fields[nb::borrow(spec.nodes[node].key)] = child;
  return nb::borrow(object).attr("_replace")(**fields);
}

// Whether a gradient tree has an entry for a child; by position it has all.
bool has_child(PyObject* object, Kind kind, PyObject* key) {
  if (key == nullptr) return true;
  if (kind == Kind::dict || by_functions(kind)) {
    nb::object dict = kind == Kind::dict ? nb::borrow(object) : registered_children(object);
    const int has = PyDict_Contains(dict.ptr(), key);
    if (has < 0) throw nb::python_error();
    return has == 1;
  }
  return field_value(object, key).is_valid();
}

// The leaf's new array with the axes of one of its places.
nb::object at_place(const nb::object& array, const std::vector<int>& axes) {
  if (axes.empty() || !nb::hasattr(array, "transpose")) return array;
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

namespace {

// Copies containers from the leaves up. What stands at several places becomes one new object for all of them.
class Rebuilder {
 public:
  Rebuilder(const TreeSpec& spec, std::uint32_t root, const std::vector<PyObject*>& objects, Untrained in_modules)
      : spec_(spec),
        root_(root),
        objects_(objects),
        in_modules_(in_modules),
        made_(spec.nodes[root].end - spec.nodes[root].first + 1) {}

  nb::object run(const std::vector<nb::object>& leaves) {
    const Node& top = spec_.nodes[root_];
    for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
      const Place& place = spec_.places[p];
      made(place.node) = at_place(leaves[place.leaf], place.axes);
      renewed_.try_emplace(objects_[place.node], made(place.node));
    }
    for (std::uint32_t n = top.end; n-- > top.first;) make(n);
    make(root_);
    for (const Late& late : late_)
      if (auto found = renewed_.find(late.child.ptr()); found != renewed_.end()) set_late(late, found->second);
    return made(root_);
  }

 private:
  // A child that is not trained, and may yet turn out to be a container that is trained elsewhere.
  struct Late {
    std::uint32_t parent, node;
    nb::object child;
  };

  nb::object& made(std::uint32_t n) { return n == root_ ? made_.back() : made_[n - spec_.nodes[root_].first]; }

  void make(std::uint32_t n) {
    const Node& node = spec_.nodes[n];
    if (!is_container(node.kind) || !node.live()) return;
    if (auto known = renewed_.find(objects_[n]); known != renewed_.end()) {
      made(n) = known->second;
      return;
    }
    if (node.kind == Kind::module) {  // inner ones first, so that deepcopy finds them and need not descend
      made(n) = copied_module(objects_[n], new_arrays(), in_modules_);
      renewed_.emplace(objects_[n], made(n));
      return;
    }
    children_.clear();
    const nb::object given = by_functions(node.kind) ? registered_children(objects_[n]) : nb::borrow(objects_[n]);
    for (std::uint32_t c = node.first; c < node.first + node.count; ++c) {
      if (spec_.nodes[c].live()) children_.emplace_back(c, made(c));
      else if (nb::object child = child_at(n, c, given.ptr()); child.is_valid()) keep_one(n, c, std::move(child));
    }
    made(n) = new_container(spec_, n, objects_[n], children_);
    renewed_.emplace(objects_[n], made(n));
  }

  // From the identity of an old array to the new one, as deepcopy wants it; shared by all Modules of the model.
  nb::dict& new_arrays() {
    if (nb::len(new_arrays_) > 0) return new_arrays_;
    const Node& top = spec_.nodes[root_];
    for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
      const std::uint32_t n = spec_.places[p].node;
      new_arrays_[nb::steal(PyLong_FromVoidPtr(objects_[n]))] = made(n);
    }
    return new_arrays_;
  }

  void keep_one(std::uint32_t n, std::uint32_t c, nb::object child) {
    const Kind kind = spec_.nodes[n].kind;
    if (auto found = renewed_.find(child.ptr()); found != renewed_.end()) children_.emplace_back(c, found->second);
    else if (kind == Kind::dict || kind == Kind::list || kind == Kind::dataclass) {
      if (is_container(kind_of(child.ptr()))) late_.push_back({n, c, std::move(child)});
    }
  }

  // Not valid where there is none, or where looking would run somebody's code. `object`: of kinds by functions what
  // those returned.
  nb::object child_at(std::uint32_t n, std::uint32_t c, PyObject* object) const {
    const Node& node = spec_.nodes[n];
    if (node.kind == Kind::dict || (by_functions(node.kind) && PyDict_CheckExact(object))) {
      if (!PyDict_CheckExact(object)) return {};
      nb::object child = nb::borrow(PyDict_GetItemWithError(object, spec_.nodes[c].key));
      if (!child.is_valid() && PyErr_Occurred()) throw nb::python_error();
      return child;
    }
    if (node.kind == Kind::dataclass) return field_value(object, spec_.nodes[c].key);
    return nb::borrow(PySequence_Fast_GET_ITEM(object, static_cast<Py_ssize_t>(c - node.first)));
  }

  void set_late(const Late& late, const nb::object& child) {
    PyObject* parent = made(late.parent).ptr();
    const Node& node = spec_.nodes[late.parent];
    if (node.kind == Kind::dict) check(PyObject_SetItem(parent, spec_.nodes[late.node].key, child.ptr()));
    else if (node.kind == Kind::dataclass)
      check(PyObject_GenericSetAttr(parent, spec_.nodes[late.node].key, child.ptr()));
    else check(PySequence_SetItem(parent, static_cast<Py_ssize_t>(late.node - node.first), child.ptr()));
  }

  const TreeSpec& spec_;
  const std::uint32_t root_;
  const std::vector<PyObject*>& objects_;
  const Untrained in_modules_;
  std::vector<nb::object> made_;  // the root's last
  std::unordered_map<PyObject*, nb::object> renewed_;
  std::vector<Late> late_;
  Children children_;
  nb::dict new_arrays_;
};

}  // namespace

nb::object rebuild(const TreeSpec& spec, std::uint32_t root, const std::vector<PyObject*>& objects,
                   const std::vector<nb::object>& leaves, Untrained in_modules) {
  if (!spec.nodes[root].live()) return nb::borrow(objects[root]);
  return Rebuilder(spec, root, objects, in_modules).run(leaves);
}

nb::object selected(const TreeSpec& spec, const std::vector<PyObject*>& objects) {
  std::vector<nb::object> made(spec.nodes.size());
  Children children;
  for (std::uint32_t n = static_cast<std::uint32_t>(spec.nodes.size()); n-- > 0;) {
    const Node& node = spec.nodes[n];
    made[n] = nb::none();
    if (!node.live() || objects[n] == nullptr) continue;
    made[n] = nb::borrow(objects[n]);
    if (!is_container(node.kind)) continue;
    const Kind kind = kind_of(objects[n]);
    children.clear();
    for (std::uint32_t c = node.first; c < node.first + node.count; ++c)
      if (has_child(objects[n], kind, spec.nodes[c].key)) children.emplace_back(c, made[c]);
    made[n] = kind == Kind::named_tuple ? replaced_fields(spec, objects[n], children)
                                        : new_container(spec, n, objects[n], children, kind);
  }
  return made[0];
}

}  // namespace optimisers::python
