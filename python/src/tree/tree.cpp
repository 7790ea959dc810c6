// tree.cpp: flattening a model, and the names of its nodes.
#include "tree/tree.hpp"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "arrays/array.hpp"
#include "arrays/device_array.hpp"
#include "arrays/jax_arrays.hpp"
#include "errors.hpp"
#include "handle.hpp"
#include "tree/classes.hpp"

namespace optimisers::python {
namespace {

class Flattener {
 public:
  Flattener(TreeSpec& spec, const char* call) : spec_(spec), call_(call) {}

  void run(nb::handle model) {
    spec_.nodes.push_back({});
    objects_.push_back(nb::borrow(model));
    classify(0, true);
    std::vector<std::uint32_t> open;
    if (is_container(spec_.nodes[0].kind)) open.push_back(0);
    while (!open.empty()) {
      const std::uint32_t n = open.back();
      if (spec_.nodes[n].end != 0) {  // all below it is done
        open.pop_back();
        spec_.nodes[n].end = static_cast<std::uint32_t>(spec_.nodes.size());
        ancestors_.erase(objects_[n].ptr());
        continue;
      }
      expand(n);
      for (std::uint32_t i = spec_.nodes[n].count; i-- > 0;)
        if (is_container(spec_.nodes[spec_.nodes[n].first + i].kind)) open.push_back(spec_.nodes[n].first + i);
    }
    spec_.number_places();
  }

  std::optional<std::uint32_t> traced;  // a node whose array has no values, if there is one

  nb::object& object(std::uint32_t node) { return objects_[node]; }
  // What to read the array at a node from: itself, or a view of it that can be read.
  nb::object readable(std::uint32_t node) {
    const nb::object& object = objects_[node];
    ArrayView view;
    if (read_array(object.ptr(), view) != Fault::not_array) return object;
    if (auto known = views_.find(object.ptr()); known != views_.end()) return known->second;
    const bool jax = is_jax(object.ptr());
    nb::object readable;
    const Fault fault = import_device_array(object.ptr(), readable);
    if (fault == Fault::not_array && !jax) return object;
    if (fault == Fault::not_array) readable = values_or_outline(node);
    else if (fault != Fault::none) refuse(node, fault);
    // JAX shares memory among arrays that are not one; its ties are the same object at several places.
    if (jax && read_array(readable.ptr(), view) == Fault::none && !jax_memory_.insert(view.data).second)
      readable = view.device == on_host ? numpy_copy(readable.ptr()) : device_copy(view, view.dtype);
    return views_[object.ptr()] = std::move(readable);
  }

 private:
  void expand(std::uint32_t n) {
    if (!ancestors_.insert(objects_[n].ptr()).second)
      value_error(std::string(call_) + ": the model contains itself at \"" + spec_.text(n) + "\"");
    children_of(objects_[n].ptr(), spec_.nodes[n].kind, children_);
    mark_trained(objects_[n].ptr(), spec_.nodes[n].kind, children_, call_);
    const auto first = static_cast<std::uint32_t>(spec_.nodes.size());
    spec_.nodes[n].first = first;
    spec_.nodes[n].count = static_cast<std::uint32_t>(children_.size());
    spec_.nodes[n].end = first;  // marks it as expanded; first > 0
    for (Child& child : children_) {
      Node node;
      node.parent = n;
      node.key = child.key.release().ptr();
      if (node.key != nullptr && PyUnicode_CheckExact(node.key)) PyUnicode_InternInPlace(&node.key);
      spec_.nodes.push_back(node);
      objects_.push_back(std::move(child.value));
      classify(static_cast<std::uint32_t>(spec_.nodes.size() - 1), child.trained);
    }
  }

  nb::object values_or_outline(std::uint32_t node) {
    PyObject* array = objects_[node].ptr();
    nb::object values = jax_values(array);
    if (values.is_valid()) return values;
    if (!traced) traced = node;
    return jax_outline(array);
  }

  void classify(std::uint32_t n, bool trained) {
    if (!trained) return;
    PyObject* object = objects_[n].ptr();
    Kind& kind = spec_.nodes[n].kind;
    kind = kind_of(object);
    if (kind != Kind::value || object == Py_None) return;
    std::vector<Child> none;
    mark_trained(object, kind, none, call_);  // refuses an override for what is no container
    if (nb::isinstance<Duplicated>(objects_[n]))
      type_error(std::string(call_) + ": Duplicated at \"" + spec_.text(n) +
                 "\"; it holds a whole model and cannot stand inside one or where only a model is expected");
    if (is_jax_extended(object)) return;
    ArrayView view;
    const Fault fault = read_array(readable(n).ptr(), view);
    if (fault == Fault::none && is_trainable(view.dtype)) kind = Kind::leaf;
    if (fault == Fault::none || fault == Fault::not_numeric) return;
    if ((fault == Fault::byte_order || fault == Fault::masked) && !is_trainable(view.dtype)) return;
    if (fault == Fault::not_array && !foreign_array(object)) return;
    refuse(n, fault);
  }

  [[noreturn]] void refuse(std::uint32_t n, Fault fault) const {
    const std::string message =
        std::string(call_) + ": array at \"" + spec_.text(n) + "\" " + fault_text(objects_[n].ptr(), fault);
    fault == Fault::not_array || fault == Fault::device ? type_error(message) : value_error(message);
  }

  // An array of a library we cannot read must not pass for something that is not trained.
  static bool foreign_array(PyObject* object) {
    return PyObject_HasAttrString(reinterpret_cast<PyObject*>(Py_TYPE(object)), "__dlpack__");
  }

  TreeSpec& spec_;
  const char* call_;
  std::vector<nb::object> objects_;
  std::vector<Child> children_;
  std::unordered_set<PyObject*> ancestors_;
  std::unordered_map<PyObject*, nb::object> views_;  // of arrays that cannot be read themselves
  std::unordered_set<const std::byte*> jax_memory_;
};

}  // namespace

bool is_tie(const ArrayView& a, const ArrayView& b) {
  if (a.data != b.data || a.dtype != b.dtype || a.ndim != b.ndim) return false;
  if (a.shape == b.shape) return true;  // one object, as mostly
  std::int64_t dense = size_of(a.dtype);
  for (int i = a.ndim - 1; i >= 0; --i) {
    if (a.shape[i] != b.shape[i]) return false;
    const std::int64_t l = a.strides ? a.strides[i] * a.stride_unit : dense;
    const std::int64_t r = b.strides ? b.strides[i] * b.stride_unit : dense;
    if (a.shape[i] != 1 && l != r) return false;
    dense *= a.shape[i];
  }
  return true;
}

TreeSpec::~TreeSpec() {
  for (Node& node : nodes) Py_XDECREF(node.key);
}

void TreeSpec::number_places() {
  places.clear();
  std::vector<std::uint32_t> open{0};
  std::vector<bool> entered(nodes.size());
  while (!open.empty()) {
    const std::uint32_t n = open.back();
    Node& node = nodes[n];
    if (entered[n]) {
      node.place_end = static_cast<std::uint32_t>(places.size());
      open.pop_back();
      continue;
    }
    entered[n] = true;
    node.place_begin = static_cast<std::uint32_t>(places.size());
    if (node.kind == Kind::leaf) places.push_back({n, static_cast<std::uint32_t>(places.size()), {}});
    for (std::uint32_t i = node.count; i-- > 0;) open.push_back(node.first + i);
  }
  containers.clear();
  for (std::uint32_t n = 1; n < nodes.size(); ++n)
    if (is_container(nodes[n].kind) && nodes[n].live()) containers.push_back(n);
  first_place.resize(places.size());
  for (std::uint32_t p = 0; p < places.size(); ++p) first_place[p] = p;
  find_runs();
}

void TreeSpec::find_runs() {
  constexpr std::uint32_t longest = 32;
  runs.clear();
  const auto plain = [&](std::uint32_t n) { return nodes[n].kind == Kind::dict || by_position(nodes[n].kind); };
  if (!plain(0) || !std::all_of(containers.begin(), containers.end(), plain)) return;
  const auto add_runs_of = [&](std::uint32_t container) {
    const std::uint32_t first = nodes[container].first, end = first + nodes[container].count;
    for (std::uint32_t n = first, begin = first; n <= end; ++n) {
      const bool is_link = n < end && is_container(nodes[n].kind) && nodes[n].live();
      if (n < end && !is_link && n - begin < longest) continue;
      if (n != begin) runs.push_back({container, begin, n, nodes[begin].place_begin});
      begin = is_link ? n + 1 : n;
    }
  };
  add_runs_of(0);
  for (const std::uint32_t n : containers) add_runs_of(n);
  std::stable_sort(runs.begin(), runs.end(), [](const Run& l, const Run& r) { return l.place_begin < r.place_begin; });
}

std::vector<std::uint32_t> TreeSpec::leaves_below(std::uint32_t node) const {
  if (is_mark(node)) return marks[node - nodes.size()].leaves;
  std::vector<std::uint32_t> leaves;
  std::unordered_set<std::uint32_t> seen;
  for (std::uint32_t p = nodes[node].place_begin; p < nodes[node].place_end; ++p)
    if (!tied() || seen.insert(places[p].leaf).second) leaves.push_back(places[p].leaf);
  return leaves;
}

std::uint32_t TreeSpec::child(std::uint32_t n, PyObject* key) const {
  const Node& node = nodes[n];
  if (by_position(node.kind)) {
    if (!PyIndex_Check(key)) return 0;
    Py_ssize_t i = PyNumber_AsSsize_t(key, PyExc_IndexError);
    if (i == -1 && PyErr_Occurred()) {
      PyErr_Clear();
      return 0;
    }
    if (i < 0) i += node.count;
    return i >= 0 && i < static_cast<Py_ssize_t>(node.count) ? node.first + static_cast<std::uint32_t>(i) : 0;
  }
  for (std::uint32_t i = node.first; i < node.first + node.count; ++i)
    if (same_key(nodes[i].key, key)) return i;
  for (std::uint32_t i = node.first; i < node.first + node.count; ++i) {
    const int equal = PyObject_RichCompareBool(nodes[i].key, key, Py_EQ);
    if (equal < 0) throw nb::python_error();
    if (equal == 1) return i;
  }
  return 0;
}

nb::object TreeSpec::key(std::uint32_t n) const {
  return nodes[n].key ? nb::borrow(nodes[n].key) : nb::int_(n - nodes[nodes[n].parent].first);
}

nb::tuple TreeSpec::path(std::uint32_t n) const {
  if (is_mark(n)) return nb::make_tuple(marks[n - nodes.size()].marker);
  nb::list keys;
  for (; n != 0; n = nodes[n].parent) keys.append(key(n));
  keys.attr("reverse")();
  return nb::tuple(keys);
}

std::string TreeSpec::text(std::uint32_t n) const {
  constexpr std::size_t most = 64, kept = 8;
  if (n == 0) return "x";
  if (is_mark(n)) return nb::repr(marks[n - nodes.size()].marker).c_str();
  std::vector<std::uint32_t> way;
  for (; n != 0; n = nodes[n].parent) way.push_back(n);
  std::reverse(way.begin(), way.end());
  std::string text;
  for (std::size_t i = 0; i < way.size(); ++i) {
    if (way.size() > most && i == kept) {
      i = way.size() - kept;
      text += ".(" + std::to_string(way.size() - 2 * kept) + " more)";
    }
    if (!text.empty()) text += '.';
    text += nb::str(key(way[i])).c_str();
  }
  return text;
}

void check_values(const Flattened& flat, const char* call) {
  if (!flat.traced) return;
  type_error(std::string(call) + ": array at \"" + flat.spec->text(*flat.traced) + "\" " +
             fault_text(Py_None, Fault::traced));
}

Flattened flatten(nb::handle model, const char* call, Ties ties) {
  Flattened result{std::make_shared<TreeSpec>(), {}, {}, {}, {}, {}};
  TreeSpec& spec = *result.spec;
  Flattener flattener(spec, call);
  flattener.run(model);

  result.traced = flattener.traced;
  std::vector<ArrayView> views(spec.places.size());
  for (std::size_t p = 0; p < views.size(); ++p) {
    read_array(result.read_from.emplace_back(flattener.readable(spec.places[p].node)).ptr(), views[p]);
    result.at_places.push_back(flattener.object(spec.places[p].node));
  }
  if (ties == Ties::ignored) {
    result.arrays = result.at_places;
    result.views = std::move(views);
    return result;
  }
  const std::vector<Alias> aliases =
      find_aliases(views, [&](std::size_t p) { return spec.text(spec.places[p].node); }, call);
  spec.first_place.clear();
  for (std::uint32_t p = 0; p < views.size(); ++p) {
    Place& place = spec.places[p];
    if (aliases[p].first != p) {
      place.leaf = spec.places[aliases[p].first].leaf;
      place.axes = aliases[p].axes;
      continue;
    }
    place.leaf = static_cast<std::uint32_t>(spec.first_place.size());
    spec.first_place.push_back(p);
    result.arrays.push_back(flattener.object(place.node));
    result.views.push_back(views[p]);
  }
  return result;
}

}  // namespace optimisers::python
