// walk.hpp: finding the objects of a model, or of a gradient tree, at the nodes of a spec. Part of the hot path.
#pragma once
#include "optimisers/config.hpp"
#include "tree/untrained.hpp"

namespace optimisers::python {

inline void prefetch_object(const PyObject* object) {
  const char* fields = reinterpret_cast<const char*>(object);  // an array's object lies in two cache lines
  OPT_PREFETCH(fields);
  OPT_PREFETCH(fields + 64);
}

// What a container's children are read from, from the first of interest on; `object` must be in the cache by now.
inline void prefetch_children(PyObject* object, std::ptrdiff_t first = 0) {
  if (PyDict_CheckExact(object)) {
    const char* table = reinterpret_cast<const char*>(reinterpret_cast<PyDictObject*>(object)->ma_keys);
    for (std::ptrdiff_t line = 0; line < 4; ++line) OPT_PREFETCH(table + 64 * line);
  } else if (PyList_CheckExact(object)) {
    OPT_PREFETCH(static_cast<const void*>(reinterpret_cast<PyListObject*>(object)->ob_item + first));
  }
}

// Throws, naming the path, where the model is not of the spec's shape.
void walk_model(const TreeSpec& spec, std::uint32_t root, PyObject* model, const char* call, Objects& out);

// Throws for keys the model lacks, wrong lengths and other kinds of containers, and for entries where nothing is
// trained that are `refused`; None and missing keys leave null. `what` the tree holds is for messages.
void walk_gradients(const TreeSpec& spec, std::uint32_t root, PyObject* gradients, const char* call, Objects& out,
                    const char* what = "gradient", Entries refused = Entries::gradients);

// The same, with the objects left borrowed where that can be; see objects.hpp. `model`: walked before, and owned with
// the gradients.
void borrow_model(const TreeSpec& spec, std::uint32_t root, PyObject* model, const char* call, Objects& out);
void borrow_gradients(const TreeSpec& spec, std::uint32_t root, PyObject* gradients, const char* call, Objects& model,
                      Objects& out);

// The gradient at a node as the core sees it; false: missing. Replaces objects that have to be computed first.
bool read_gradient(const TreeSpec& spec, std::uint32_t node, Objects& gradients, const char* call, ArrayView& out);

}  // namespace optimisers::python
