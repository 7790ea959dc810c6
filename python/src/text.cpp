// text.cpp: surrogates, NULs and objects that do not want to be printed.
#include "text.hpp"

#include <string_view>

namespace optimisers::python {
namespace {

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

std::string without_control(std::string_view text) {
  constexpr const char* digits = "0123456789abcdef";
  std::string out;
  for (const char c : text) {
    if (!is_control(c)) out += c;
    else if (c == '\n') out += "\\n";
    else if (c == '\t') out += "\\t";
    else ((out += "\\x") += digits[c >> 4]) += digits[c & 15];
  }
  return out;
}

// What the object's method returned; where that raised, the error is gone unless nobody may catch it.
std::string shown(nb::handle object, PyObject* (*method)(PyObject*)) {
  const nb::object text = nb::steal(method(object.ptr()));
  if (text.is_valid()) return escaped(text);
  if (!PyErr_ExceptionMatches(PyExc_Exception)) throw nb::python_error();
  PyErr_Clear();
  return std::string("<") + Py_TYPE(object.ptr())->tp_name + " object>";
}

}  // namespace

std::string escaped(nb::handle text) {
  Py_ssize_t size = 0;
  if (const char* plain = PyUnicode_AsUTF8AndSize(text.ptr(), &size)) {
    const std::string_view view(plain, static_cast<std::size_t>(size));
    for (const char c : view)
      if (is_control(c)) return without_control(view);
    return std::string(view);
  }
  PyErr_Clear();
  const nb::object bytes = nb::steal(PyUnicode_AsEncodedString(text.ptr(), "utf-8", "backslashreplace"));
  if (!bytes.is_valid()) throw nb::python_error();
  return without_control({PyBytes_AS_STRING(bytes.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(bytes.ptr()))});
}

std::string str_text(nb::handle object) { return shown(object, &PyObject_Str); }
std::string repr_text(nb::handle object) { return shown(object, &PyObject_Repr); }

}  // namespace optimisers::python
