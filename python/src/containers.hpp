// containers.hpp: the kinds of objects a tree is made of, and their children.
#pragma once
#include <nanobind/nanobind.h>

#include <cstring>
#include <string>
#include <vector>

namespace optimisers::python {

namespace nb = nanobind;

enum class Kind : std::uint8_t {
  value,  // opaque: passes through
  leaf,   // a trainable array
  dict, list, tuple, named_tuple, dataclass,
};
inline bool is_container(Kind kind) { return kind >= Kind::dict; }
inline bool by_position(Kind kind) { return kind == Kind::list || kind == Kind::tuple; }
const char* name_of(Kind kind);

// The fields of a class whose objects have a fixed set of them.
struct Fields {
  Kind kind;
  std::vector<PyObject*> names;  // interned, so that most comparisons end at the pointer
  std::vector<bool> trained;
  PyObject* class_reference = nullptr;  // weak; its callback forgets these fields
};
// Null for classes that are neither named tuples nor dataclasses.
const Fields* fields_of(PyTypeObject* type);

// By class alone: arrays are `value` here.
Kind kind_of(PyObject* object);

struct Child {
  nb::object key;  // not valid by position
  nb::object value;
  bool trained = true;
};
void children_of(PyObject* object, Kind kind, std::vector<Child>& out);

// Equal keys, as far as can be told without running anybody's code.
inline bool same_key(PyObject* a, PyObject* b) {
  if (a == b) return true;
  if (!PyUnicode_CheckExact(a) || !PyUnicode_CheckExact(b)) return false;
  const Py_ssize_t n = PyUnicode_GET_LENGTH(a);
  if (n != PyUnicode_GET_LENGTH(b) || PyUnicode_KIND(a) != PyUnicode_KIND(b)) return false;
  return std::memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), static_cast<std::size_t>(n) * PyUnicode_KIND(a)) == 0;
}

// A field of an object; not valid where the attribute does not exist.
nb::object field_value(PyObject* object, PyObject* name);

}  // namespace optimisers::python
