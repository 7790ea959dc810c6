// plain.cpp: the common case of a call, read without the interpreter's help: dicts, lists and tuples of NumPy's own
// arrays, with the keys in the order of setup. Nothing here runs code of anybody or changes a reference count, so that
// all threads may read while this one holds the interpreter. Whatever is not of this kind goes the general way.
#include "optimisers/config.hpp"
#include "plan/portions.hpp"
#include "state/state.hpp"

namespace optimisers::python {
namespace {

constexpr int calls_not_tried = 16;       // after one that was not of this kind
constexpr std::size_t together = 128;     // places that are read, and then examined, while they are in the cache
constexpr std::size_t far = 8, near = 4;  // runs, to have their containers and then their children in the cache

// One of the two trees of a call.
class PlainTree {
 public:
  PlainTree(const TreeSpec& spec, Objects& objects, bool is_model)
      : spec_(spec), objects_(objects), is_model_(is_model) {}

  // Puts the containers below the root where they belong.
  bool walk(PyObject* root) {
    objects_.begin(0);
    objects_.put(0, root);
    for (const std::uint32_t n : spec_.containers)
      if (!children(spec_.nodes[n].parent, n, n + 1)) return false;
    return true;
  }

  // Puts the children [begin, end) of a container where they belong. False: look closer.
  bool children(std::uint32_t container, std::uint32_t begin, std::uint32_t end) {
    PyObject* object = objects_[container];
    if (object == nullptr) return true;
    const Node& parent = spec_.nodes[container];
    const auto first = static_cast<Py_ssize_t>(begin - parent.first), count = static_cast<Py_ssize_t>(parent.count);
    if (parent.kind == Kind::dict) {
      if (!PyDict_CheckExact(object) || PyDict_GET_SIZE(object) != count) return false;
      PyObject *key, *value;
      Py_ssize_t position = first;  // of a dict that lost no key
      for (std::uint32_t n = begin; n < end; ++n) {
        if (!PyDict_Next(object, &position, &key, &value)) return false;
        if (key != spec_.nodes[n].key && !objects_.knows_key(n, key)) return false;
        put(n, value);
      }
      return true;
    }
    const bool is_list = PyList_CheckExact(object), is_tuple = PyTuple_CheckExact(object);
    if (!(is_model_ ? (parent.kind == Kind::list ? is_list : is_tuple) : is_list || is_tuple)) return false;
    if (PySequence_Fast_GET_SIZE(object) != count) return false;
    PyObject** items = PySequence_Fast_ITEMS(object) + first;
    for (std::uint32_t n = begin; n < end; ++n) put(n, items[n - begin]);
    return true;
  }

  void prefetch_container(const Run& run) const { prefetch_object(objects_[run.container]); }
  void prefetch_children_of(const Run& run) const {
    if (PyObject* object = objects_[run.container])
      prefetch_children(object, run.begin - spec_.nodes[run.container].first);
  }

 private:
  void put(std::uint32_t n, PyObject* object) {
    if (!spec_.nodes[n].met() || (!is_model_ && object == Py_None)) return;
    prefetch_object(object);
    objects_.put(n, object);
  }

  const TreeSpec& spec_;
  Objects& objects_;
  bool is_model_;
};

}  // namespace

bool State::read_plain(std::size_t begin, std::size_t end) {
  for (std::size_t i = begin; i < end; ++i) {
    const Place& place = spec_->places[i];
    LeafUpdate& update = updates_[i];
    PyObject* gradient = gradients_[place.node];
    update.leaf = place.leaf;
    update.more = -1;
    update.dx.present = false;
    if (!read_plain_numpy(model_[place.node], update.x)) return false;
    OPT_PREFETCH(update.x.shape);
    if (gradient == nullptr) continue;
    if (!read_plain_numpy(gradient, update.dx)) return false;
    OPT_PREFETCH(update.dx.shape);
  }
  return true;
}

std::optional<Examined> State::collect_plain(std::uint32_t root, PyObject* model, const GradientSource& source) {
  if (root != 0 || spec_->runs.empty() || spec_->tied() || layout_ || !user_stages_.empty() || lets_go()) return {};
  if (source.tree == nullptr || source.zero != ZeroGrad::no || source.flushes) return {};
  if (calls_to_skip_ > 0) {
    --calls_to_skip_;
    return {};
  }
  calls_to_skip_ = calls_not_tried;
  const auto examined = walk_plain(model, source.tree);
  if (examined) {
    calls_to_skip_ = 0;
    used_ = spec_->places.size();
  } else {
    model_.clear();
    gradients_.clear();
  }
  return examined;
}

std::optional<Examined> State::walk_plain(PyObject* model, PyObject* tree) {
  PlainTree parameters(*spec_, model_, true), gradients(*spec_, gradients_, false);
  if (!parameters.walk(model) || !gradients.walk(tree)) return {};
  const std::vector<Run>& runs = spec_->runs;
  const std::size_t n = spec_->places.size(), portions = portion_count(n);
  struct Portion {
    Examined found;
    bool read = false;
  };
  std::vector<Portion> of(portions);
  in_portions(runs.size(), portions, [&](std::size_t portion, std::size_t next, std::size_t end) {
    const auto place = [&](std::size_t run) { return run < runs.size() ? runs[run].place_begin : n; };
    while (next < end) {
      const std::size_t begin = place(next);
      for (; next < end && place(next) < begin + together; ++next) {
        if (next + far < end) parameters.prefetch_container(runs[next + far]);
        if (next + far < end) gradients.prefetch_container(runs[next + far]);
        if (next + near < end) parameters.prefetch_children_of(runs[next + near]);
        if (next + near < end) gradients.prefetch_children_of(runs[next + near]);
        const Run& run = runs[next];
        if (!parameters.children(run.container, run.begin, run.end)) return;
        if (!gradients.children(run.container, run.begin, run.end)) return;
      }
      if (!read_plain(begin, place(next))) return;
      of[portion].found.add(core_.examine({updates_.data(), n}, begin, place(next)));
    }
    of[portion].read = true;
  });
  for (std::size_t portion = 0; portion < portions; ++portion) {
    if (!of[portion].read) return {};
    if (portion > 0) of[0].found.add(of[portion].found);
  }
  if (!plainly_untrained(*spec_, model_, gradients_)) return {};
  return of[0].found;
}

}  // namespace optimisers::python
