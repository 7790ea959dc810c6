// walk.hpp: finding the objects of a model, or of a gradient tree, at the nodes of a spec. Part of the hot path.
#pragma once
#include <string>
#include <vector>

#include "tree.hpp"

namespace optimisers::python {

// The object at each live node below `root`; null: missing. Strong references, dropped by clear(). The memory is kept.
class Objects {
 public:
  explicit Objects(const TreeSpec& spec) : at_(spec.nodes.size(), nullptr) {}
  ~Objects() { clear(); }
  Objects(const Objects&) = delete;
  Objects& operator=(const Objects&) = delete;

  PyObject* operator[](std::uint32_t node) const { return at_[node]; }
  const std::vector<PyObject*>& all() const { return at_; }
  void keep(std::uint32_t node, PyObject* object) {  // takes a new reference
    Py_INCREF(object);
    at_[node] = object;
  }
  void replace(std::uint32_t node, nb::object object) {
    Py_XDECREF(at_[node]);
    at_[node] = object.release().ptr();
  }
  // One walk at a time: which part clear() has to look at.
  void begin(const TreeSpec& spec, std::uint32_t root) {
    root_ = root;
    first_ = spec.nodes[root].first;
    end_ = spec.nodes[root].end;
  }
  void clear() {
    Py_CLEAR(at_[root_]);
    for (std::uint32_t n = first_; n < end_; ++n) Py_CLEAR(at_[n]);
    first_ = end_ = 0;
  }

 private:
  std::vector<PyObject*> at_;
  std::uint32_t root_ = 0, first_ = 0, end_ = 0;
};

// Throws, naming the path, where the model is not of the spec's shape.
void walk_model(const TreeSpec& spec, std::uint32_t root, PyObject* model, const char* call, Objects& out);

// Throws for keys the model lacks, wrong lengths and other kinds of containers; None and missing keys leave null.
// `what` the tree holds is for messages.
void walk_gradients(const TreeSpec& spec, std::uint32_t root, PyObject* gradients, const char* call, Objects& out,
                    const char* what = "gradient");

// The gradient at a node as the core sees it; false: missing. Replaces objects that have to be computed first.
bool read_gradient(const TreeSpec& spec, std::uint32_t node, Objects& gradients, const char* call, ArrayView& out);

}  // namespace optimisers::python
