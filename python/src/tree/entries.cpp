// entries.cpp: what other trees have where the model has nothing trained.
#include <algorithm>
#include <unordered_set>

#include "errors.hpp"
#include "tree/untrained.hpp"

namespace optimisers::python {
namespace {

// Attributes of foreign objects; not valid where there are none.
nb::object attribute(PyObject* object, const char* name) {
  nb::object value = nb::steal(PyObject_GetAttrString(object, name));
  if (!value.is_valid()) PyErr_Clear();
  return value;
}

bool has_no_elements(PyObject* object) {
  nb::object shape = attribute(object, "shape");
  if (!shape.is_valid() || !PyTuple_Check(shape.ptr())) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(shape.ptr()); ++i) {
    nb::object n = nb::borrow(PyTuple_GET_ITEM(shape.ptr(), i));
    if (PyLong_Check(n.ptr()) && PyObject_IsTrue(n.ptr()) == 0) return true;
  }
  nb::object dtype = attribute(object, "dtype");  // JAX's float0: elements of no bytes
  nb::object bytes = dtype.is_valid() ? attribute(dtype.ptr(), "itemsize") : nb::object();
  return bytes.is_valid() && PyLong_Check(bytes.ptr()) && PyObject_IsTrue(bytes.ptr()) == 0;
}

std::string remedy(const std::string& what) {
  if (what.rfind("an array", 0) == 0 || what.rfind("a tensor", 0) == 0)
    return "make it one of floats to train it, or mark it as not trained";
  const bool number = what == "a float" || what == "an int" || what == "a bool" || what == "a complex" ||
                      what.rfind("a scalar", 0) == 0;
  if (number) return "make it numpy.zeros(1) to train it, or mark it as not trained";
  return "make it an array of floats to train it, or mark it as not trained";
}

// An entry of another tree, and where: below a node of the spec, by what keys on.
struct Entry {
  std::uint32_t node;
  bool known;  // the entry stands at the node; otherwise below it, where the model has nothing
  nb::object object;
  std::string below;
};

class EntryCheck {
 public:
  EntryCheck(const TreeSpec& spec, const Objects* model, Entries refused, const char* call, const char* what)
      : spec_(spec), model_(model), refused_(refused), call_(call), what_(what) {}

  void run(std::uint32_t node, PyObject* object) {
    open_.push_back({node, true, nb::borrow(object), {}});
    while (!open_.empty()) {
      Entry entry = std::move(open_.back());
      open_.pop_back();
      look(entry);
    }
    seen_.clear();
  }

 private:
  void look(const Entry& entry) {
    PyObject* object = entry.object.ptr();
    const Node& node = spec_.nodes[entry.node];
    if (entry.known && !is_container(node.kind)) {
      const UntrainedValue* value = node.watched ? spec_.untrained_at(entry.node) : nullptr;
      if (value == nullptr || value->asleep) return;  // marked as not trained
    }
    if (object == Py_None) return;
    const Kind kind = kind_of(object);
    if (is_container(kind)) return enter(entry, kind);
    if (refused_ == Entries::arrays ? !is_leaf_array(object) || has_no_elements(object) : says_nothing(entry)) return;
    refuse(entry);
  }

  void enter(const Entry& entry, Kind kind) {
    if (!seen_.insert(entry.object.ptr()).second) return;
    kept_.push_back(entry.object);
    children_of(entry.object.ptr(), kind, children_);
    const std::size_t first = open_.size();
    for (std::size_t i = 0; i < children_.size(); ++i) {
      Child& child = children_[i];
      nb::object key = child.key.is_valid() ? child.key : nb::object(nb::int_(i));
      const bool inside = entry.known && is_container(spec_.nodes[entry.node].kind);
      const std::uint32_t node = inside ? spec_.child(entry.node, key.ptr()) : 0;
      if (node != 0) open_.push_back({node, true, std::move(child.value), {}});
      else if (!inside || !spec_.is_buffer(entry.node, key.ptr()))
        open_.push_back(
            {entry.node, false, std::move(child.value), entry.below + "." + std::string(nb::str(key).c_str())});
    }
    std::reverse(open_.begin() + static_cast<std::ptrdiff_t>(first), open_.end());
  }

  // The model's own values, carried along by copies of it (dataclasses.replace, map_trainables), are no gradients; a
  // float always is one.
  bool says_nothing(const Entry& entry) const {
    PyObject* object = entry.object.ptr();
    if (has_no_elements(object)) return true;
    if (!entry.known || is_container(spec_.nodes[entry.node].kind)) return false;
    const UntrainedValue& value = *spec_.untrained_at(entry.node);
    if (is_no_number(object)) return what_is(object) == value.what;
    if (value.value.is_valid() && Py_TYPE(value.value.ptr()) == Py_TYPE(object) && value.value.equal(entry.object))
      return true;
    if (PyFloat_Check(object) || PyComplex_Check(object) || what_is(object).rfind("a scalar", 0) == 0) return false;
    return model_object(entry.node).is(entry.object);
  }

  // Not valid where the model is not there.
  nb::object model_object(std::uint32_t n) const {
    if (model_ == nullptr) return {};
    std::vector<std::uint32_t> way;
    for (; (*model_)[n] == nullptr; n = spec_.nodes[n].parent) {
      if (n == 0) return {};
      way.push_back(n);
    }
    nb::object object = nb::borrow((*model_)[n]);
    std::vector<Child> children;
    for (; !way.empty(); way.pop_back()) {
      const std::uint32_t child = way.back(), place = child - spec_.nodes[spec_.nodes[child].parent].first;
      const Kind kind = kind_of(object.ptr());
      if (!is_container(kind)) return {};
      children_of(object.ptr(), kind, children);
      if (place >= children.size()) return {};
      object = children[place].value;
    }
    return object;
  }

  [[noreturn]] void refuse(const Entry& entry) const {
    PyObject* object = entry.object.ptr();
    std::string path = entry.node == 0 && !entry.below.empty() ? "" : spec_.text(entry.node);
    path = '"' + path + entry.below.substr(path.empty() && !entry.below.empty() ? 1 : 0) + '"';
    const std::string there = std::string(call_) + ": there is a " + what_ + " (" + what_is(object) + ") for " + path;
    const Node& node = spec_.nodes[entry.node];
    if (!entry.known || is_container(node.kind)) {
      const std::string model = is_container(node.kind)
                                    ? "a " + std::string(name_of(node.kind)) + " in which nothing is trained"
                                    : spec_.untrained_at(entry.node)->what;
      value_error(there + ", and the model has " + model + " at \"" + spec_.text(entry.node) +
                  "\"; pass None where nothing is trained" + extended());
    }
    const std::string& at_setup = spec_.untrained_at(entry.node)->what;
    value_error(there + ", and " + path + " is " + at_setup + ": " + remedy(at_setup));
  }
  std::string extended() const {
    return refused_ == Entries::gradients ? ", or give what is new a state with extend_" : "";
  }

  const TreeSpec& spec_;
  const Objects* model_;
  const Entries refused_;
  const char *call_, *what_;
  std::vector<Entry> open_;
  std::vector<Child> children_;
  std::unordered_set<PyObject*> seen_;  // containers, which kept_ keeps where they are
  std::vector<nb::object> kept_;
};

}  // namespace

bool has_entries(const TreeSpec& spec, std::uint32_t root, const Objects& tree) {
  bool any = false;
  each_untrained(
      spec, root, [&](const UntrainedValue& u) { any |= tree[u.node] != nullptr; },
      [&](std::uint32_t n) { any |= tree[n] != nullptr; });
  return any;
}

void check_entries(const TreeSpec& spec, std::uint32_t root, const Objects& tree, const Objects* model, Entries refused,
                   const char* call, const char* what) {
  if (refused == Entries::any) return;
  EntryCheck check(spec, model, refused, call, what);
  each_untrained(
      spec, root,
      [&](const UntrainedValue& u) {
        if (!u.asleep && tree[u.node] != nullptr) check.run(u.node, tree[u.node]);
      },
      [&](std::uint32_t n) {
        if (tree[n] != nullptr) check.run(n, tree[n]);
      });
}

}  // namespace optimisers::python
