// tree.cpp: flattening a model, and the names of its nodes.
#include "tree.hpp"

#include <algorithm>
#include <unordered_set>

#include "array.hpp"
#include "errors.hpp"

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

  nb::object& object(std::uint32_t node) { return objects_[node]; }

 private:
  void expand(std::uint32_t n) {
    if (!ancestors_.insert(objects_[n].ptr()).second)
      value_error(std::string(call_) + ": the model contains itself at \"" + spec_.text(n) + "\"");
    children_of(objects_[n].ptr(), spec_.nodes[n].kind, children_);
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

  void classify(std::uint32_t n, bool trained) {
    if (!trained) return;
    PyObject* object = objects_[n].ptr();
    Kind& kind = spec_.nodes[n].kind;
    kind = kind_of(object);
    if (kind != Kind::value || object == Py_None) return;
    ArrayView view;
    const Fault fault = read_array(object, view);
    if (fault == Fault::none && is_trainable(view.dtype)) kind = Kind::leaf;
    if (fault == Fault::none || fault == Fault::not_numeric) return;
    if (fault == Fault::byte_order && !is_trainable(view.dtype)) return;
    if (fault == Fault::not_array && !foreign_array(object)) return;
    const std::string message =
        std::string(call_) + ": array at \"" + spec_.text(n) + "\" " + fault_text(object, fault);
    fault == Fault::not_array ? type_error(message) : value_error(message);
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
};

}  // namespace

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
  first_place.resize(places.size());
  for (std::uint32_t p = 0; p < places.size(); ++p) first_place[p] = p;
}

std::vector<std::uint32_t> TreeSpec::leaves_below(std::uint32_t node) const {
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
  for (std::uint32_t i = node.first; i < node.first + node.count; ++i)
    if (PyObject_RichCompareBool(nodes[i].key, key, Py_EQ) == 1) return i;
  PyErr_Clear();
  return 0;
}

nb::object TreeSpec::key(std::uint32_t n) const {
  return nodes[n].key ? nb::borrow(nodes[n].key) : nb::int_(n - nodes[nodes[n].parent].first);
}

nb::tuple TreeSpec::path(std::uint32_t n) const {
  nb::list keys;
  for (; n != 0; n = nodes[n].parent) keys.append(key(n));
  keys.attr("reverse")();
  return nb::tuple(keys);
}

std::string TreeSpec::text(std::uint32_t n) const {
  constexpr std::size_t most = 64, kept = 8;
  if (n == 0) return "x";
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

nb::tuple TreeSpec::state() const {
  nb::list node_states, place_states;
  for (const Node& node : nodes)
    node_states.append(nb::make_tuple(static_cast<int>(node.kind), node.key ? nb::borrow(node.key) : nb::none(),
                                      node.key != nullptr, node.parent, node.first, node.count, node.end));
  for (const Place& place : places) {
    nb::list axes;
    for (int axis : place.axes) axes.append(axis);
    place_states.append(nb::make_tuple(place.leaf, axes));
  }
  return nb::make_tuple(node_states, place_states);
}

std::shared_ptr<TreeSpec> TreeSpec::from_state(const nb::tuple& state) {
  auto spec = std::make_shared<TreeSpec>();
  for (nb::handle item : state[0]) {
    Node node;
    node.kind = static_cast<Kind>(nb::cast<int>(item[0]));
    if (nb::cast<bool>(item[2])) {
      node.key = nb::object(item[1]).release().ptr();
      if (PyUnicode_CheckExact(node.key)) PyUnicode_InternInPlace(&node.key);
    }
    node.parent = nb::cast<std::uint32_t>(item[3]);
    node.first = nb::cast<std::uint32_t>(item[4]);
    node.count = nb::cast<std::uint32_t>(item[5]);
    node.end = nb::cast<std::uint32_t>(item[6]);
    spec->nodes.push_back(node);
  }
  spec->number_places();
  spec->first_place.clear();
  std::uint32_t p = 0;
  for (nb::handle item : state[1]) {
    Place& place = spec->places.at(p);
    place.leaf = nb::cast<std::uint32_t>(item[0]);
    for (nb::handle axis : item[1]) place.axes.push_back(nb::cast<int>(axis));
    if (place.leaf == spec->first_place.size()) spec->first_place.push_back(p);
    ++p;
  }
  return spec;
}

Flattened flatten(nb::handle model, const char* call) {
  Flattened result{std::make_shared<TreeSpec>(), {}, {}};
  TreeSpec& spec = *result.spec;
  Flattener flattener(spec, call);
  flattener.run(model);

  std::vector<ArrayView> views(spec.places.size());
  std::vector<std::string> names;
  for (std::size_t p = 0; p < views.size(); ++p) {
    read_array(flattener.object(spec.places[p].node).ptr(), views[p]);
    names.push_back(spec.text(spec.places[p].node));
  }
  std::vector<Alias> aliases;
  try {
    aliases = find_aliases(views, names);
  } catch (const Error& error) {
    const std::string message = error.what();
    throw Error(error.kind(), message.rfind(call, 0) == 0 ? message : std::string(call) + ": " + message);
  }
  spec.first_place.clear();
  for (std::uint32_t p = 0; p < views.size(); ++p) {
    Place& place = spec.places[p];
    if (aliases[p].first != p) {
      place.leaf = spec.places[aliases[p].first].leaf;
      place.axes = std::move(aliases[p].axes);
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
