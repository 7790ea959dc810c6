// containers.cpp: telling containers apart, and their children in insertion order.
#include "tree/containers.hpp"

#include <unordered_map>

#include "arrays/array.hpp"
#include "tree/classes.hpp"
#include "tree/torch_module.hpp"

namespace optimisers::python {
namespace {

PyObject* interned(nb::handle text) {
  PyObject* s = nb::str(text).release().ptr();
  PyUnicode_InternInPlace(&s);
  return s;
}

void read_named_tuple(PyObject* type, Fields& out) {
  nb::object names = nb::getattr(type, "_fields", nb::handle());
  if (!names.is_valid() || !PyTuple_Check(names.ptr()) || !nb::getattr(type, "_make", nb::handle()).is_valid()) return;
  out.kind = Kind::named_tuple;
  for (nb::handle name : names) {
    out.names.push_back(interned(name));
    out.trained.push_back(true);
  }
}

// By our own word, or as jax, equinox ("static") and flax ("pytree_node") mark what gradients pass by.
bool marked_as_not_trained(const nb::object& metadata) {
  const auto says = [&](const char* key, bool value) {
    return metadata.attr("get")(key, nb::none()).equal(nb::bool_(value));
  };
  return says("trainable", false) || says("static", true) || says("pytree_node", false);
}

// attrs' classes are dataclasses in all that matters here; their fields have the same attributes.
void read_dataclass(PyObject* type, Fields& out) {
  nb::object fields = nb::getattr(type, "__attrs_attrs__", nb::handle());
  if (nb::getattr(type, "__dataclass_fields__", nb::handle()).is_valid())
    fields = nb::module_::import_("dataclasses").attr("fields")(nb::handle(type));
  if (!fields.is_valid() || !PyTuple_Check(fields.ptr())) return;
  out.kind = Kind::dataclass;
  for (nb::handle field : fields) {
    out.names.push_back(interned(field.attr("name")));
    out.trained.push_back(!marked_as_not_trained(field.attr("metadata")));
  }
}

std::unordered_map<PyTypeObject*, Fields>& known_classes() {
  static auto& known = *new std::unordered_map<PyTypeObject*, Fields>;
  return known;
}

// Whether a class computes the attribute: one that raises AttributeError then exists nevertheless. What a class keeps
// (a slot that was not set yet) or does not know is missing.
bool computes(PyTypeObject* type, PyObject* name) {
  nb::handle cls(reinterpret_cast<PyObject*>(type));
  for (nb::handle base : nb::tuple(cls.attr("__mro__"))) {
    nb::object attributes = base.attr("__dict__");
    if (!nb::cast<bool>(attributes.attr("__contains__")(nb::handle(name)))) continue;
    nb::object found = attributes[nb::handle(name)];
    return Py_TYPE(found.ptr())->tp_descr_get != nullptr && !Py_IS_TYPE(found.ptr(), &PyMemberDescr_Type);
  }
  return false;
}

constexpr unsigned long containers = Py_TPFLAGS_DICT_SUBCLASS | Py_TPFLAGS_LIST_SUBCLASS | Py_TPFLAGS_TUPLE_SUBCLASS;

bool is_like_an_array(PyTypeObject* type) {
  PyObject* object = reinterpret_cast<PyObject*>(type);
  if (type->tp_as_buffer != nullptr && type->tp_as_buffer->bf_getbuffer != nullptr) return true;
  for (const char* name : {"__dlpack__", "__array__", "__array_interface__", "shape"})
    if (nb::hasattr(nb::handle(object), name)) return true;
  return false;
}

// Called when a class dies; `address` is where it was.
PyObject* forget_class(PyObject* address, PyObject*) {
  auto& known = known_classes();
  auto found = known.find(static_cast<PyTypeObject*>(PyLong_AsVoidPtr(address)));
  if (found != known.end()) {
    for (PyObject* name : found->second.names) Py_DECREF(name);
    Py_DECREF(found->second.class_reference);
    known.erase(found);
    forget_kinds();
  }
  Py_RETURN_NONE;
}
PyMethodDef forgetting = {"forget_class", forget_class, METH_O, nullptr};

void dict_children(PyObject* dict, std::vector<Child>& out) {
  if (PyDict_CheckExact(dict)) {
    PyObject *key, *value;
    for (Py_ssize_t pos = 0; PyDict_Next(dict, &pos, &key, &value);)
      out.push_back({nb::borrow(key), nb::borrow(value)});
    return;
  }
  // A subclass decides on its own order (OrderedDict.move_to_end).
  for (nb::handle key : nb::list(nb::borrow(dict))) {
    nb::object value = nb::steal(PyObject_GetItem(dict, key.ptr()));
    if (!value.is_valid()) throw nb::python_error();
    out.push_back({nb::borrow(key), std::move(value)});
  }
}

}  // namespace

namespace {
constexpr const char* kind_names[] = {  // in the order of Kind
    "value",   "array",   "dict", "list", "tuple", "named tuple", "dataclass", "Module", "registered object",
    "Mapping", "Sequence"};
}

const char* name_of(Kind kind) { return kind_names[static_cast<int>(kind)]; }
Kind kind_named(std::string_view name) {
  std::uint8_t kind = 0;
  while (kind_names[kind] != name) ++kind;
  return static_cast<Kind>(kind);
}

bool is_opaque(PyTypeObject* type) {
  const auto& known = known_classes();
  const auto found = known.find(type);
  return found != known.end() && found->second.opaque;
}

bool is_known_container(PyTypeObject* type) {
  const auto& known = known_classes();
  const auto found = known.find(type);
  return found != known.end() && is_container(found->second.kind);
}

const Fields* fields_of(PyTypeObject* type) {
  auto& known = known_classes();
  auto found = known.find(type);
  if (found == known.end()) {
    PyObject* object = reinterpret_cast<PyObject*>(type);
    Fields fields{};
    if (PyType_FastSubclass(type, Py_TPFLAGS_TUPLE_SUBCLASS)) read_named_tuple(object, fields);
    else read_dataclass(object, fields);
    fields.opaque = fields.kind == Kind::value && !PyType_FastSubclass(type, containers) && !is_like_an_array(type);
    fields.class_reference = reference_that_calls(forgetting, type);
    found = known.emplace(type, std::move(fields)).first;
  }
  return found->second.kind == Kind::value ? nullptr : &found->second;
}

namespace {

// Of classes that need a closer look: what came out, for those asked for last. Without references: whoever forgets a
// class empties it.
struct KindOfClass {
  PyTypeObject* type;
  Kind kind;
};
KindOfClass recent_kinds[16] = {};

KindOfClass& recent_kind(PyTypeObject* type) {
  constexpr std::uintptr_t alignment = 16;
  return recent_kinds[reinterpret_cast<std::uintptr_t>(type) / alignment % std::size(recent_kinds)];
}

Kind find_kind(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  if (const Registered* r = registered(object); r != nullptr && r->children != nullptr) return r->kind;
  if (is_torch_module(type)) return Kind::module;
  if (const Fields* fields = fields_of(type)) return fields->kind;
  if (PyDict_Check(object)) return Kind::dict;
  if (PyList_Check(object)) return Kind::list;
  return PyTuple_Check(object) ? Kind::tuple : Kind::value;
}

}  // namespace

void forget_kinds() {
  for (KindOfClass& recent : recent_kinds) recent = {};
}

Kind kind_of(PyObject* object) {
  if (PyDict_CheckExact(object)) return Kind::dict;
  if (PyList_CheckExact(object)) return Kind::list;
  if (PyTuple_CheckExact(object)) return Kind::tuple;
  if (PyLong_CheckExact(object) || PyFloat_CheckExact(object) || PyUnicode_CheckExact(object) || object == Py_None)
    return Kind::value;
  if (is_numpy_exact(object)) return Kind::value;
  PyTypeObject* type = Py_TYPE(object);
  if (const KindOfClass& recent = recent_kind(type); recent.type == type) return recent.kind;
  const Kind kind = find_kind(object);
  if (has_class_registry()) recent_kind(type) = {type, kind};  // which knows when a class goes
  return kind;
}

nb::object field_value(PyObject* object, PyObject* name) {
  nb::object value = nb::steal(PyObject_GetAttr(object, name));
  if (value.is_valid()) return value;
  if (!PyErr_ExceptionMatches(PyExc_AttributeError)) throw nb::python_error();
  nb::python_error failed;  // takes the error
  if (computes(Py_TYPE(object), name)) throw failed;
  return {};
}

void children_of(PyObject* object, Kind kind, std::vector<Child>& out, const PlaceText& place) {
  const auto by_its_functions = [&] {
    return place ? children_or_refused(object, place) : registered_children(object);
  };
  out.clear();
  if (kind == Kind::dict) return dict_children(object, out);
  if (by_position(kind)) {
    const nb::object items = kind == Kind::sequence ? by_its_functions() : nb::borrow(object);
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(items.ptr()); ++i)
      out.push_back({{}, nb::borrow(PySequence_Fast_GET_ITEM(items.ptr(), i))});
    return;
  }
  if (by_functions(kind)) return dict_children(by_its_functions().ptr(), out);
  if (kind == Kind::module) return module_children(object, out);
  const Fields* fields = fields_of(Py_TYPE(object));
  for (std::size_t i = 0; i < fields->names.size(); ++i) {
    const auto at = static_cast<Py_ssize_t>(i);
    nb::object value;
    if (kind != Kind::named_tuple) value = field_value(object, fields->names[i]);
    else if (at < PyTuple_GET_SIZE(object)) value = nb::borrow(PyTuple_GET_ITEM(object, at));
    if (!value.is_valid()) value = nb::none();
    out.push_back({nb::borrow(fields->names[i]), std::move(value), fields->trained[i]});
  }
}

}  // namespace optimisers::python
