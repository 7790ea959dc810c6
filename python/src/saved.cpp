// saved.cpp: objects of the types they should be.
#include "saved.hpp"

#include "errors.hpp"
#include "text.hpp"

namespace optimisers::python::saved {
namespace {

[[noreturn]] void refuse_kind(nb::handle object, const char* what, const std::string& expected) {
  refuse(std::string(what) + ": expected " + expected + ", got a " + Py_TYPE(object.ptr())->tp_name);
}

}  // namespace

void refuse(const std::string& what) { value_error("unpickling a state: " + what); }

nb::tuple items(nb::handle object, const char* what) {
  if (!PyTuple_Check(object.ptr()) && !PyList_Check(object.ptr())) refuse_kind(object, what, "a list or a tuple");
  nb::object copy = nb::steal(PySequence_Tuple(object.ptr()));
  if (!copy.is_valid()) throw nb::python_error();
  return nb::borrow<nb::tuple>(copy);
}

nb::tuple items(nb::handle object, std::size_t count, const char* what) {
  nb::tuple all = items(object, what);
  if (all.size() != count)
    refuse(std::string(what) + ": expected " + std::to_string(count) + " items, got " + std::to_string(all.size()));
  return all;
}

std::int64_t integer(nb::handle object, std::int64_t lowest, std::int64_t highest, const char* what) {
  if (!PyLong_Check(object.ptr())) refuse_kind(object, what, "an integer");
  int overflow = 0;
  const std::int64_t value = PyLong_AsLongLongAndOverflow(object.ptr(), &overflow);
  if (overflow != 0 || value < lowest || value > highest)
    refuse(std::string(what) + ": expected an integer from " + std::to_string(lowest) + " to " +
           std::to_string(highest) + ", got " + repr_text(object));
  return value;
}

bool boolean(nb::handle object, const char* what) {
  if (!PyBool_Check(object.ptr())) refuse_kind(object, what, "True or False");
  return object.ptr() == Py_True;
}

std::string text(nb::handle object, const char* what) {
  if (!PyUnicode_Check(object.ptr())) refuse_kind(object, what, "a str");
  return escaped(object);
}

std::string_view bytes(nb::handle object, const char* what) {
  if (!PyBytes_Check(object.ptr())) refuse_kind(object, what, "bytes");
  return {PyBytes_AS_STRING(object.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(object.ptr()))};
}

}  // namespace optimisers::python::saved
