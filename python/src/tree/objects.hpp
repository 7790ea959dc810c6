// objects.hpp: the objects a walk finds at the nodes of a spec, and who keeps them alive meanwhile.
#pragma once
#include <vector>

#include "tree/tree.hpp"

namespace optimisers::python {

// The object at each live node below a root; null: missing. They are borrowed at first: walking plain containers and
// reading NumPy arrays lets nobody drop one. Before any other code may run, own() takes references. A model of many
// arrays is larger than the caches, and a reference to an array costs least where the array is read.
class Objects {
 public:
  explicit Objects(const TreeSpec& spec) : spec_(spec), at_(spec.nodes.size(), nullptr) {}
  ~Objects();
  Objects(const Objects&) = delete;
  Objects& operator=(const Objects&) = delete;

  PyObject* operator[](std::uint32_t node) const { return at_[node]; }
  const std::vector<PyObject*>& all() const { return at_; }

  // One walk at a time; the memory is kept.
  void begin(std::uint32_t root) {
    root_ = root;
    begun_ = true;
  }
  void clear();

  void put(std::uint32_t node, PyObject* object) {
    if (owned_) Py_INCREF(object);
    at_[node] = object;
  }
  void own() {  // all that is there, and all that comes
    if (!owned_) own_all();
  }
  // The object at the next place: for who reads the places in their order.
  void own_place(std::uint32_t node) {
    if (owned_) return;
    Py_XINCREF(at_[node]);
    ++owned_places_;
  }
  void replace(std::uint32_t node, nb::object object) {  // all must be owned
    Py_XDECREF(at_[node]);
    at_[node] = object.release().ptr();
  }

  // What it keeps between walks, for the garbage collector.
  int visit_keys(visitproc visit, void* arg) const {
    for (PyObject* key : keys_) Py_VISIT(key);
    return 0;
  }
  void drop_keys();

  // Keys of dicts that equal the spec's but are other objects: comparing those once is enough.
  bool knows_key(std::uint32_t node, PyObject* key) const { return !keys_.empty() && keys_[node] == key; }
  void learn_key(std::uint32_t node, PyObject* key);

 private:
  void own_all();
  void release_places();

  const TreeSpec& spec_;
  std::vector<PyObject*> at_, keys_;
  std::uint32_t root_ = 0, owned_places_ = 0;
  bool begun_ = false, owned_ = false;
};

}  // namespace optimisers::python
