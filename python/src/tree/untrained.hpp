// untrained.hpp: the children of a model that are not trained, though nobody marked them as such: numbers, integer
// arrays, None, strings, and containers of nothing else. A gradient for one of them is refused, and what has come to be
// trained.
#pragma once
#include <algorithm>

#include "tree/objects.hpp"

namespace optimisers::python {

// What an object is, for messages: "a float", "an array of int64", "None".
std::string what_is(PyObject* object);

// Whether an object would be a leaf.
bool is_leaf_array(PyObject* object);

// Whether an object can be told to be no leaf by its class alone, without running anybody's code.
bool is_plain_value(PyObject* object);

// Whether nobody takes it for a gradient: text, functions, classes.
bool is_no_number(PyObject* object);

// Which entries of another tree are refused where the model has nothing trained.
enum class Entries : std::uint8_t {
  gradients,  // whatever says something: all but None, JAX's float0, and what has no elements
  arrays,     // arrays that would be leaves: the tree may be another model, with values of its own
  any,        // none
};

// Whether all that a model has, at a node and below it, is trained or marked: then there is nothing to look through.
inline bool all_is_trained(const TreeSpec& spec, std::uint32_t root) {
  return spec.untrained.empty() && spec.idle.empty() && !spec.nodes[root].watched;
}

// Whether a tree has anything at all where the model has nothing trained.
bool has_entries(const TreeSpec& spec, std::uint32_t root, const Objects& tree);
// Throws for the first entry below the root that is refused. `model`, where there is one, has the model's objects.
void check_entries(const TreeSpec& spec, std::uint32_t root, const Objects& tree, const Objects* model, Entries refused,
                   const char* call, const char* what);

// Throws where something below the root is trained now and was not at setup. Below containers in which nothing was,
// only Modules are looked at, unless `all`: there a gradient could come from the arrays themselves.
void check_still_untrained(const TreeSpec& spec, std::uint32_t root, Objects& model, const char* call, bool all);

// Whether neither check has anything to say, as far as can be told without running anybody's code.
bool plainly_untrained(const TreeSpec& spec, const Objects& model, const Objects& gradients);

// Calls `value` with what is not trained at the root and below it, and `container` with its idle containers.
template <class Value, class Container>
void each_untrained(const TreeSpec& spec, std::uint32_t root, Value&& value, Container&& container) {
  const Node& top = spec.nodes[root];
  const auto by_node = [](const UntrainedValue& u, std::uint32_t n) { return u.node < n; };
  auto u = std::lower_bound(spec.untrained.begin(), spec.untrained.end(), top.first, by_node);
  for (; u != spec.untrained.end() && u->node < top.end; ++u) value(*u);
  auto n = std::lower_bound(spec.idle.begin(), spec.idle.end(), top.first);
  for (; n != spec.idle.end() && *n < top.end; ++n) container(*n);
  if (!top.watched) return;
  if (is_container(top.kind)) container(root);
  else value(*spec.untrained_at(root));
}

}  // namespace optimisers::python
