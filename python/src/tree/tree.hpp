// tree.hpp: the shape of a model: its containers, keys and leaves, flattened once.
// A container's children are contiguous and follow it, and so do all nodes below it: one loop forward visits
// parents before children, one backward children before parents, and nothing recurses.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "optimisers/array.hpp"
#include "tree/containers.hpp"

namespace optimisers::python {

struct Node {
  PyObject* key = nullptr;  // in its parent, owned by the spec; null by position and at the root
  std::uint32_t parent = 0;
  std::uint32_t first = 0, count = 0;            // children
  std::uint32_t end = 0;                         // one past the last node below; those are [first, end)
  std::uint32_t place_begin = 0, place_end = 0;  // places at and below, in walk order
  Kind kind = Kind::value;
  bool watched = false;  // nothing here or below is trained, and it is not marked so

  bool live() const { return place_begin != place_end; }  // something below is trained
  bool met() const { return live() || watched; }          // by walks
};

// A value that is not marked as not trained: a gradient for it is a mistake.
struct UntrainedValue {
  std::uint32_t node;
  bool asleep;       // a Module's parameter that requires no gradient: marked, until it does
  std::string what;  // it was at setup: "a float"
  nb::object value;  // of an int, bool or str; else not valid
};

// Where a leaf stands. Tied arrays are one leaf with several places.
struct Place {
  std::uint32_t node, leaf;
  std::vector<int> axes;  // axis i of the leaf is axis axes[i] here; empty: the same
};

// Neighbouring children of one container, none of them a live container: nodes [begin, end).
struct Run {
  std::uint32_t container, begin, end;
  std::uint32_t place_begin;  // the first place there or behind
};

// Leaves that carried a Marker at setup. Names of nodes go on behind the nodes: nodes.size() + i is mark i, which has
// leaves and a text, and nothing else.
struct Mark {
  nb::object marker;
  std::vector<std::uint32_t> leaves;
};

// A state's spec is its own, so that the garbage collector can tell who keeps the objects in it.
class TreeSpec {
 public:
  std::vector<Node> nodes;
  std::vector<Place> places;               // depth first, in insertion order
  std::vector<std::uint32_t> first_place;  // of each leaf
  std::vector<std::uint32_t> containers;   // the live ones below the root, in their order
  std::vector<Run> runs;  // all children that are no live containers; empty: not all are dicts, lists and tuples
  std::vector<Mark> marks;
  std::vector<UntrainedValue> untrained;  // in the order of their nodes
  std::vector<std::uint32_t> idle;        // containers without anything trained whose parent has something
  std::vector<std::pair<std::uint32_t, nb::object>> buffers;  // of Modules: names that are no children

  TreeSpec() = default;
  TreeSpec(const TreeSpec&) = delete;
  TreeSpec& operator=(const TreeSpec&) = delete;
  ~TreeSpec();

  std::size_t leaf_count() const { return first_place.size(); }
  std::uint32_t leaf_node(std::size_t leaf) const { return places[first_place[leaf]].node; }  // its first place
  bool tied() const { return first_place.size() != places.size(); }
  std::vector<std::uint32_t> leaves_below(std::uint32_t node) const;  // each once, in walk order
  std::uint32_t child(std::uint32_t node, PyObject* key) const;       // 0: there is none
  const UntrainedValue* untrained_at(std::uint32_t node) const;
  bool is_buffer(std::uint32_t node, PyObject* key) const;
  std::string listed_children(std::uint32_t node) const;  // "'w', 'b'"; the first ten

  nb::object key(std::uint32_t node) const;  // an int by position
  nb::tuple path(std::uint32_t node) const;
  std::string text(std::uint32_t node) const;  // "layers.3.weight"; "the model"; very deep ones abridged

  bool is_mark(std::uint32_t node) const { return node >= nodes.size(); }
  void check_part(std::uint32_t node, const char* call) const;  // throws for marks
  nb::list mark_states() const;                                 // [(marker, leaves)]
  void take_marks(nb::handle states);

  nb::tuple state() const;  // for pickling
  static std::unique_ptr<TreeSpec> from_state(nb::handle state);
  // Throws where the axes of a tied place are no order of its leaf's.
  void check_axes(const std::function<std::size_t(std::uint32_t)>& ndim_of) const;

  void number_places();  // after the nodes are there

  std::unique_ptr<TreeSpec> copy() const;
  // A copy in which these leaves are values, and which has no marks.
  std::unique_ptr<TreeSpec> without(const std::vector<bool>& leaves) const;

  // Keys and markers, as the garbage collector sees them. Without them a spec is of no use.
  int visit_objects(visitproc visit, void* arg) const;
  void drop_objects();

 private:
  void find_runs();
  std::uint32_t child_by_index(std::uint32_t node, PyObject* key) const;

  mutable std::map<std::uint32_t, nb::object> index_;  // of large containers, once asked: a dict from key to child
};

struct Flattened {
  std::shared_ptr<TreeSpec> spec;
  std::vector<nb::object> arrays;  // of each leaf
  std::vector<ArrayView> views;
  std::vector<nb::object> at_places;    // the array object at each place
  std::vector<nb::object> read_from;    // what the views are of, at each place
  std::optional<std::uint32_t> traced;  // a node whose array JAX traces: its view has a shape, and no values
};
// Throws, naming the path, for cycles, arrays that cannot be trained and arrays that overlap.
// With ties ignored each place is a leaf of its own, and arrays may overlap.
enum class Ties : bool { found, ignored };
// In which order a dict's children are laid out. JAX sorts them, so that a tree that went through jax.jit must not have
// its leaves in another order than before.
enum class Order : std::uint8_t {
  of_library,  // sorted as soon as an array in the tree is JAX's, insertion order otherwise
  insertion,
  sorted,
};
Flattened flatten(nb::handle model, const char* call, Ties ties = Ties::found, Order order = Order::of_library);
// For those who read the arrays: throws where JAX traces one.
void check_values(const Flattened& flat, const char* call);

// Whether arrays at two places of a tied leaf, both with the leaf's axes, are one: views of it may have come to have
// their axes in another order, or fewer elements.
bool is_tie(const ArrayView& a, const ArrayView& b);

// The model with its leaves replaced: new containers of the same classes, what is not trained shared, except for
// trained arrays and their containers that stand at a place that is not trained as well: they stay one.
// `objects` has the model's object at each live node. `in_modules`: what becomes of untrained values of a Module.
enum class Untrained : bool;
nb::object rebuild(const TreeSpec& spec, std::uint32_t root, const std::vector<PyObject*>& objects,
                   const std::vector<nb::object>& leaves, Untrained in_modules);

// A tree of the model's shape with None where the model has nothing trained. `objects` are the tree's.
nb::object selected(const TreeSpec& spec, const std::vector<PyObject*>& objects);

// The array with its axes in this order.
nb::object with_axes(const nb::object& array, const std::vector<int>& axes);

}  // namespace optimisers::python
