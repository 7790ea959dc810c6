// objects.cpp: taking references and letting them go.
#include "tree/objects.hpp"

#include <algorithm>

#include "optimisers/config.hpp"

namespace optimisers::python {
namespace {
constexpr std::uint32_t ahead = 16;  // objects, to have them in the cache when it is their turn
}

Objects::~Objects() {
  clear();
  drop_keys();
}

void Objects::drop_keys() {
  const std::vector<PyObject*> gone = std::move(keys_);
  keys_.clear();
  for (PyObject* key : gone) Py_XDECREF(key);
}

void Objects::own_all() {
  const Node& top = spec_.nodes[root_];
  Py_XINCREF(at_[root_]);
  for (std::uint32_t n = top.first; n < top.end; ++n) {
    if (n + ahead < top.end) OPT_PREFETCH(at_[n + ahead]);
    Py_XINCREF(at_[n]);
  }
  release_places();
  owned_ = true;
}

void Objects::release_places() {
  const std::uint32_t begin = spec_.nodes[root_].place_begin, end = begin + owned_places_;
  for (std::uint32_t p = begin; p < end; ++p) {
    if (p + ahead < end) OPT_PREFETCH(at_[spec_.places[p + ahead].node]);
    Py_XDECREF(at_[spec_.places[p].node]);
  }
  owned_places_ = 0;
}

void Objects::clear() {
  if (!begun_) return;  // a call that walks nothing is not to look at a whole tree
  begun_ = false;
  const Node& top = spec_.nodes[root_];
  if (owned_) {
    owned_ = false;
    Py_CLEAR(at_[root_]);
    for (std::uint32_t n = top.first; n < top.end; ++n) {
      if (n + ahead < top.end) OPT_PREFETCH(at_[n + ahead]);
      Py_CLEAR(at_[n]);
    }
    return;
  }
  release_places();
  at_[root_] = nullptr;
  std::fill(at_.begin() + top.first, at_.begin() + top.end, nullptr);
}

void Objects::learn_key(std::uint32_t node, PyObject* key) {
  if (keys_.empty()) keys_.resize(at_.size(), nullptr);
  Py_INCREF(key);
  Py_XSETREF(keys_[node], key);
}

}  // namespace optimisers::python
