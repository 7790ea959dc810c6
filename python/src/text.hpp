// text.hpp: text from outside as messages show it: UTF-8 whatever it was, with control characters escaped.
#pragma once
#include <nanobind/nanobind.h>

#include <string>

namespace optimisers::python {

namespace nb = nanobind;

std::string escaped(nb::handle text);  // a str
// str() and repr() of an object; where its own method fails or gives no string, what object's would.
std::string str_text(nb::handle object);
std::string repr_text(nb::handle object);

}  // namespace optimisers::python
