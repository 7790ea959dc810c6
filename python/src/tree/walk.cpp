// walk.cpp: one loop over the containers; each hands its children's objects to their nodes.
#include "tree/walk.hpp"

#include <algorithm>

#include "arrays/array.hpp"
#include "errors.hpp"
#include "text.hpp"
#include "tree/classes.hpp"
#include "tree/torch_module.hpp"

namespace optimisers::python {
namespace {

// Containers of these classes are walked without running anybody's code.
bool is_plain(PyObject* object) {
  return PyDict_CheckExact(object) || PyList_CheckExact(object) || PyTuple_CheckExact(object);
}

std::string described(PyObject* object) {
  const Kind kind = kind_of(object);
  std::string text = is_container(kind) && !by_functions(kind) ? name_of(kind) : type_name(object);
  if (is_container(kind) && !by_functions(kind) && (by_position(kind) || kind == Kind::dict)) {
    const Py_ssize_t n = PyObject_Size(object);
    text += by_position(kind) ? " of length " + std::to_string(n) : " with " + std::to_string(n) + " keys";
  }
  return text;
}

std::string key_text(PyObject* key) { return repr_text(key); }

class Walk {
 public:
  // `model`: the model's objects while another tree is walked; they are borrowed no longer than this walk's.
  Walk(const TreeSpec& spec, const char* call, Objects& out, Objects* model = nullptr)
      : spec_(spec), call_(call), out_(out), model_(model) {}

 protected:
  const Node& node(std::uint32_t n) const { return spec_.nodes[n]; }
  void give(std::uint32_t n, PyObject* object) {
    if (node(n).met()) out_.put(n, object);
  }
  // Stands before everything that may run code of others, which may let go of any object.
  void own() {
    out_.own();
    if (model_ != nullptr) model_->own();
  }
  Kind kind_at(PyObject* object) {
    if (!is_plain(object)) own();
    return kind_of(object);
  }
  std::string quoted(std::uint32_t n) const { return "\"" + spec_.text(n) + "\""; }
  nb::object children_at(std::uint32_t n, PyObject* object, const char* what) const {
    return children_or_refused(object, [&] { return std::string(call_) + ": " + what + " at " + quoted(n); });
  }

  // Children from this one on in the order of the dict, as far as that is the spec's. Returns the first not met.
  template <class F>
  std::uint32_t each_in_order(const Node& parent, std::uint32_t child, PyObject* dict, F&& receive) {
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    const std::uint32_t end = parent.first + parent.count;
    while (child < end && PyDict_Next(dict, &pos, &key, &value) && is_key(child, key)) receive(child++, value);
    return child;
  }
  bool is_key(std::uint32_t n, PyObject* key) {
    if (key == node(n).key || out_.knows_key(n, key)) return true;
    if (!same_key(key, node(n).key)) return false;
    out_.learn_key(n, key);
    return true;
  }
  PyObject* look_up(PyObject* dict, PyObject* key) {
    own();
    PyObject* value = PyDict_GetItemWithError(dict, key);
    if (value == nullptr && PyErr_Occurred()) throw nb::python_error();
    return value;
  }
  // The child of this name, looking first where it would be in the spec's order.
  std::uint32_t child_named(const Node& parent, PyObject* key, std::uint32_t guess) const {
    if (guess < parent.count && same_key(node(parent.first + guess).key, key)) return parent.first + guess;
    for (std::uint32_t child = parent.first; child < parent.first + parent.count; ++child)
      if (same_key(node(child).key, key)) return child;
    return 0;
  }
  template <class F>
  void each_container(std::uint32_t root, F&& visit) {
    if (is_container(node(root).kind) && node(root).live()) visit(root);
    const std::vector<std::uint32_t>& all = spec_.containers;
    auto next = std::lower_bound(all.begin(), all.end(), node(root).first);
    const auto end = std::lower_bound(next, all.end(), node(root).end);
    for (; next < end; ++next) {
      if (end - next > 6 && out_[next[6]] != nullptr) OPT_PREFETCH(out_[next[6]]);
      if (end - next > 3 && out_[next[3]] != nullptr) prefetch_children(out_[next[3]]);
      if (out_[*next] != nullptr) visit(*next);
    }
  }

  const TreeSpec& spec_;
  const char* call_;
  Objects& out_;
  Objects* model_;
};

class ModelWalk : Walk {
 public:
  using Walk::Walk;
  void run(std::uint32_t root, PyObject* model) {
    out_.begin(root);
    out_.put(root, model);
    each_container(root, [this](std::uint32_t n) { expand(n); });
    if (!all_is_trained(spec_, root)) check_still_untrained(spec_, root, out_, call_, false);
  }

 private:
  [[noreturn]] void differs(std::uint32_t n, const std::string& what) const {
    const std::string_view call = call_;
    const char* remedy =
        call == "update" || call == "flush"
            ? "call extend_(state, model), which keeps the state of the rest, or setup for another model"
        : call == "destructure" ? "call destructure again for the new model"
                                : "it must not change meanwhile";
    value_error(std::string(call_) + (n == 0 ? ": the model " : ": model at " + quoted(n) + " ") + what + "; " +
                remedy);
  }
  [[noreturn]] void lost(std::uint32_t n, const char* what, PyObject* key, const nb::list& keys) const {
    differs(n, std::string("has lost its ") + what + " " + key_text(key) + " (there are " + listed(keys) + ")");
  }
  static std::string listed(const nb::list& keys) {
    constexpr std::size_t most = 10;
    std::string text;
    for (std::size_t i = 0; i < keys.size() && i < most; ++i)
      text += (i ? ", " : "") + key_text(nb::handle(keys[i]).ptr());
    return keys.size() > most ? text + ", ..." : keys.size() == 0 ? "none" : text;
  }
  // Which keys are new, or have gone. `keys` the object has now, behind what else there is to say.
  [[noreturn]] void differs_in_keys(std::uint32_t n, const nb::list& keys, const std::string& what) {
    std::string changes;
    for (nb::handle key : keys)
      if (spec_.child(n, key.ptr()) == 0) changes += (changes.empty() ? "" : ", ") + key_text(key.ptr()) + " is new";
    nb::object now = nb::steal(PySet_New(keys.ptr()));
    for (std::uint32_t c = node(n).first; c < node(n).first + node(n).count; ++c)
      if (PySet_Contains(now.ptr(), node(c).key) == 0)
        changes += (changes.empty() ? "" : ", ") + key_text(node(c).key) + " has gone";
    differs(n, what + (changes.empty() ? "" : ": " + changes));
  }
  void expand(std::uint32_t n) {
    const Node& parent = node(n);
    PyObject* object = out_[n];
    if (kind_at(object) != parent.kind)
      differs(n, "is a " + described(object) + ", was a " + name_of(parent.kind) + " at setup");
    switch (parent.kind) {
      case Kind::dict:
        return expand_dict(n, object);
      case Kind::dataclass:
        return expand_dataclass(n, object);
      case Kind::module:
        return expand_module(n, object);
      case Kind::registered:
      case Kind::mapping:
        return expand_dict(n, children_at(n, object, "model").ptr());
      case Kind::sequence:
        return expand_sequence(n, children_at(n, object, "model").ptr());
      default:
        return expand_sequence(n, object);
    }
  }
  void expand_dict(std::uint32_t n, PyObject* dict) {
    const Node& parent = node(n);
    if (PyDict_GET_SIZE(dict) != static_cast<Py_ssize_t>(parent.count)) {
      own();
      differs_in_keys(n, nb::list(nb::borrow(dict)),
                      "has " + std::to_string(PyDict_GET_SIZE(dict)) + " keys, had " + std::to_string(parent.count));
    }
    auto receive = [this](std::uint32_t child, PyObject* value) { give(child, value); };
    for (std::uint32_t child = each_in_order(parent, parent.first, dict, receive); child < parent.first + parent.count;
         ++child) {
      PyObject* value = look_up(dict, node(child).key);
      if (value == nullptr) lost(n, "key", node(child).key, nb::list(nb::borrow(dict)));
      give(child, value);
    }
  }
  void expand_sequence(std::uint32_t n, PyObject* object) {
    const Node& parent = node(n);
    const Py_ssize_t size = PySequence_Fast_GET_SIZE(object);
    if (size != static_cast<Py_ssize_t>(parent.count))
      differs(n, "has length " + std::to_string(size) + ", had " + std::to_string(parent.count));
    const bool named = parent.kind == Kind::named_tuple;
    const Fields* fields = named ? fields_of(Py_TYPE(object)) : nullptr;
    if (named && fields->names.size() != parent.count) differs(n, "has other fields than it had");
    for (std::uint32_t i = 0; i < parent.count; ++i) {
      if (named && !same_key(fields->names[i], node(parent.first + i).key))
        differs(n, "has lost its field " + key_text(node(parent.first + i).key));
      give(parent.first + i, PySequence_Fast_GET_ITEM(object, static_cast<Py_ssize_t>(i)));
    }
  }
  void expand_module(std::uint32_t n, PyObject* module) {
    const Node& parent = node(n);
    const ModuleDicts dicts = module_dicts(module);
    if (dicts.size() != static_cast<Py_ssize_t>(parent.count))
      differs_in_keys(
          n, keys_of(dicts),
          "has " + std::to_string(dicts.size()) + " parameters and child modules, had " + std::to_string(parent.count));
    std::uint32_t child = parent.first;
    for (PyObject* dict : {dicts.parameters, dicts.modules})
      if (dict != nullptr)
        child = each_in_order(parent, child, dict, [this](std::uint32_t c, PyObject* value) { give(c, value); });
    for (; child < parent.first + parent.count; ++child) {
      if (!node(child).met()) continue;
      nb::object value = module_child(dicts, node(child).key);
      if (!value.is_valid()) lost(n, "child", node(child).key, keys_of(dicts));
      give(child, value.ptr());
    }
  }
  static nb::list keys_of(const ModuleDicts& dicts) {
    nb::list keys;
    for (PyObject* dict : {dicts.parameters, dicts.modules})
      if (dict != nullptr)
        for (nb::handle key : nb::list(nb::borrow(dict))) keys.append(key);
    return keys;
  }
  void expand_dataclass(std::uint32_t n, PyObject* object) {
    const Node& parent = node(n);
    for (std::uint32_t child = parent.first; child < parent.first + parent.count; ++child) {
      if (!node(child).met()) continue;
      nb::object value = field_value(object, node(child).key);
      if (value.is_valid()) give(child, value.ptr());
      else if (node(child).live()) differs(n, "has lost its field " + key_text(node(child).key));
    }
  }
};

class GradientWalk : Walk {
 public:
  GradientWalk(const TreeSpec& spec, const char* call, Objects& out, const char* what, Objects* model = nullptr)
      : Walk(spec, call, out, model), what_(what) {}
  void run(std::uint32_t root, PyObject* gradients, Entries refused) {
    out_.begin(root);
    receive(root, gradients);
    if (out_[root] != nullptr) each_container(root, [this](std::uint32_t n) { expand(n); });
    if (all_is_trained(spec_, root) || !has_entries(spec_, root, out_)) return;
    own();
    check_entries(spec_, root, out_, model_, refused, call_, what_);
  }

 private:
  void receive(std::uint32_t n, PyObject* object) {
    if (object != Py_None) give(n, object);
  }
  [[noreturn]] void differs(std::uint32_t n, const std::string& what, const std::string& remedy) const {
    value_error(std::string(call_) + ": " + what_ + " at " + quoted(n) + " " + what + "; " + remedy);
  }
  [[noreturn]] void extra_key(std::uint32_t n, PyObject* key) const {
    const std::string text = key_text(key);
    const bool dotted = node(n).kind == Kind::module && text.find('.') != std::string::npos;
    differs(n, "has the key " + text + ", which the model lacks",
            "its keys there are " + spec_.listed_children(n) +
                (dotted ? "; for gradients by dotted names use setup(rule, dict(module.named_parameters()))" : ""));
  }
  void check_key(std::uint32_t n, std::uint32_t child, PyObject* key) const {
    if (child == 0 && !spec_.is_buffer(n, key)) extra_key(n, key);
  }
  void expand(std::uint32_t n) {
    const Node& parent = node(n);
    PyObject* object = out_[n];
    const Kind kind = kind_at(object);
    const bool fits = is_container(kind) && by_position(kind) == by_position(parent.kind);
    if (!fits) {
      differs(n, "is a " + described(object) + ", the model there is a " + name_of(parent.kind),
              by_position(parent.kind) ? "pass a list or tuple of the same length, or None"
                                       : "pass a dict or an object with the same fields, or None");
    }
    if (kind == Kind::dict) expand_dict(n, object);
    else if (kind == Kind::sequence) expand_sequence(n, children_at(n, object, what_).ptr());
    else if (by_functions(kind)) expand_dict(n, children_at(n, object, what_).ptr());
    else if (by_position(kind)) expand_sequence(n, object);
    else if (kind == Kind::module) expand_module(n, object);
    else expand_fields(n, object, kind);
  }
  void expand_module(std::uint32_t n, PyObject* module) {
    std::vector<Child> children;
    module_children(module, children);
    for (std::uint32_t i = 0; i < children.size(); ++i) {
      const std::uint32_t child = child_named(node(n), children[i].key.ptr(), i);
      check_key(n, child, children[i].key.ptr());
      if (child != 0) receive(child, children[i].value.ptr());
    }
  }
  void expand_sequence(std::uint32_t n, PyObject* object) {
    const Node& parent = node(n);
    const Py_ssize_t size = PySequence_Fast_GET_SIZE(object);
    if (size != static_cast<Py_ssize_t>(parent.count))
      differs(n, "has length " + std::to_string(size) + ", the model there has " + std::to_string(parent.count),
              "use None for what has no gradient");
    for (std::uint32_t i = 0; i < parent.count; ++i)
      receive(parent.first + i, PySequence_Fast_GET_ITEM(object, static_cast<Py_ssize_t>(i)));
  }
  void expand_dict(std::uint32_t n, PyObject* dict) {
    const Node& parent = node(n);
    auto met_in_order = [this](std::uint32_t c, PyObject* value) { receive(c, value); };
    std::uint32_t child = each_in_order(parent, parent.first, dict, met_in_order);
    Py_ssize_t met = child - parent.first;
    for (; child < parent.first + parent.count; ++child) {
      PyObject* value = look_up(dict, node(child).key);
      if (value == nullptr) continue;
      ++met;
      receive(child, value);
    }
    if (met != PyDict_GET_SIZE(dict)) find_extra_key(n, dict);
  }
  void find_extra_key(std::uint32_t n, PyObject* dict) {
    own();
    for (nb::handle key : nb::list(nb::borrow(dict).attr("keys")())) check_key(n, spec_.child(n, key.ptr()), key.ptr());
  }
  void expand_fields(std::uint32_t n, PyObject* object, Kind kind) {
    const Fields* fields = fields_of(Py_TYPE(object));
    for (std::uint32_t i = 0; i < fields->names.size(); ++i) {
      const std::uint32_t child = child_named(node(n), fields->names[i], i);
      check_key(n, child, fields->names[i]);
      if (child == 0) continue;
      if (kind == Kind::named_tuple) {
        if (static_cast<Py_ssize_t>(i) >= PyTuple_GET_SIZE(object)) break;
        receive(child, PyTuple_GET_ITEM(object, static_cast<Py_ssize_t>(i)));
      } else if (node(child).met()) {
        nb::object value = field_value(object, fields->names[i]);
        if (value.is_valid()) receive(child, value.ptr());
      }
    }
  }

  const char* what_;
};

}  // namespace

void borrow_model(const TreeSpec& spec, std::uint32_t root, PyObject* model, const char* call, Objects& out) {
  spec.check_part(root, call);
  ModelWalk(spec, call, out).run(root, model);
}

void borrow_gradients(const TreeSpec& spec, std::uint32_t root, PyObject* gradients, const char* call, Objects& model,
                      Objects& out) {
  GradientWalk(spec, call, out, "gradient", &model).run(root, gradients, Entries::gradients);
}

void walk_model(const TreeSpec& spec, std::uint32_t root, PyObject* model, const char* call, Objects& out) {
  borrow_model(spec, root, model, call, out);
  out.own();
}

void walk_gradients(const TreeSpec& spec, std::uint32_t root, PyObject* gradients, const char* call, Objects& out,
                    const char* what, Entries refused) {
  GradientWalk(spec, call, out, what).run(root, gradients, refused);
  out.own();
}

}  // namespace optimisers::python
