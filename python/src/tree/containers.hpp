// containers.hpp: the kinds of objects a tree is made of, and their children.
#pragma once
#include <nanobind/nanobind.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace optimisers::python {

namespace nb = nanobind;

enum class Kind : std::uint8_t {
  value,  // opaque: passes through
  leaf,   // a trainable array
  dict,
  list,
  tuple,
  named_tuple,
  dataclass,
  module,      // torch.nn.Module
  registered,  // of a class that came with functions of its own, see classes.hpp
  mapping,     // what follows a protocol and is none of the above: its functions come from the package
  sequence,
};
inline constexpr Kind last_kind = Kind::sequence;
inline bool is_container(Kind kind) { return kind >= Kind::dict; }
inline bool by_position(Kind kind) { return kind == Kind::list || kind == Kind::tuple || kind == Kind::sequence; }
inline bool by_functions(Kind kind) { return kind >= Kind::registered; }  // in Python, which may run anybody's code
const char* name_of(Kind kind);
Kind kind_named(std::string_view name);

// The fields of a class whose objects have a fixed set of them.
struct Fields {
  Kind kind = Kind::value;       // of any other class, which is not looked at again
  std::vector<PyObject*> names;  // interned, so that most comparisons end at the pointer
  std::vector<bool> trained;
  bool opaque = false;                  // neither a container nor anything like an array
  PyObject* class_reference = nullptr;  // weak; its callback forgets these fields
};
// Null for classes that are neither named tuples nor dataclasses, attrs' included.
const Fields* fields_of(PyTypeObject* type);

// Whether objects of a class are known to be neither containers nor anything like arrays. Runs nobody's code.
bool is_opaque(PyTypeObject* type);
bool is_known_container(PyTypeObject* type);  // of fields; as quiet

// By class alone: arrays are `value` here.
Kind kind_of(PyObject* object);
void forget_kinds();  // what kind_of remembers for the classes it met last

struct Child {
  nb::object key;  // not valid by position
  nb::object value;
  bool trained = true;
  bool asleep = false;  // not trained, as long as it requires no gradient
};
// `place`: the beginning of what is said where functions in Python fail; empty: their own error is let through.
using PlaceText = std::function<std::string()>;
void children_of(PyObject* object, Kind kind, std::vector<Child>& out, const PlaceText& place = {});

// Keys are short, and a call of memcmp costs more than comparing them.
inline bool same_bytes(const char* a, const char* b, std::size_t n) {
  const auto same = [&](auto word, std::size_t at) {
    auto other = word;
    std::memcpy(&word, a + at, sizeof word);
    std::memcpy(&other, b + at, sizeof other);
    return word == other;
  };
  if (n >= 8) {
    for (std::size_t i = 0; i + 8 <= n; i += 8)
      if (!same(std::uint64_t{}, i)) return false;
    return same(std::uint64_t{}, n - 8);
  }
  if (n >= 4) return same(std::uint32_t{}, 0) && same(std::uint32_t{}, n - 4);
  if (n >= 2) return same(std::uint16_t{}, 0) && same(std::uint16_t{}, n - 2);
  return n == 0 || *a == *b;
}

// Equal keys, as far as can be told without running anybody's code.
inline bool same_key(PyObject* a, PyObject* b) {
  if (a == b) return true;
  if (!PyUnicode_CheckExact(a) || !PyUnicode_CheckExact(b)) return false;
  const Py_ssize_t n = PyUnicode_GET_LENGTH(a);
  if (n != PyUnicode_GET_LENGTH(b) || PyUnicode_KIND(a) != PyUnicode_KIND(b)) return false;
  return same_bytes(static_cast<const char*>(PyUnicode_DATA(a)), static_cast<const char*>(PyUnicode_DATA(b)),
                    static_cast<std::size_t>(n) * PyUnicode_KIND(a));
}

// A field of an object; not valid where the attribute does not exist.
nb::object field_value(PyObject* object, PyObject* name);

}  // namespace optimisers::python
