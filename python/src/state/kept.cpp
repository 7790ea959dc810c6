// kept.cpp: reading the gradients that arrays keep.
#include "state/kept.hpp"

#include <algorithm>
#include <string>

#include "arrays/array.hpp"
#include "arrays/device_array.hpp"
#include "errors.hpp"
#include "state/state.hpp"

namespace optimisers::python {

bool keeps_gradient(PyObject* array) { return is_tensor(array); }

[[noreturn]] void refuse_without_gradient(PyObject* array, const std::string& place, const char* call) {
  value_error(std::string(call) + ": " + place + " is " + a_type(array) +
              ", which keeps no gradient; pass the gradients as third argument");
}

nb::object kept_gradient(PyObject* array) {
  static PyObject* name = PyUnicode_InternFromString("grad");
  nb::object gradient = nb::steal(PyObject_GetAttr(array, name));
  if (!gradient.is_valid()) throw nb::python_error();
  return gradient;
}

void State::find_gradients(std::uint32_t root, const GradientSource& source, const char* call) {
  if (source.tree != nullptr) {
    borrow_gradients(*spec_, root, source.tree, call, model_, gradients_);
  } else {
    model_.own();
    const bool of_this_model = source.kept_by == model_[root];  // not of one that this is a copy of
    if (of_this_model) gradients_.begin(root);
    else walk_model(*spec_, root, source.kept_by, call, gradients_);
    gradients_.own();
    const Node& top = spec_->nodes[root];
    for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
      const Place& place = spec_->places[p];
      PyObject* array = of_this_model ? model_[place.node] : gradients_[place.node];
      if (!keeps_gradient(array))
        refuse_without_gradient(array, "parameter at \"" + spec_->text(place.node) + "\"", call);
      // A tied leaf's places may be views, which hold none, and torch warns about asking one.
      const bool is_view = spec_->tied() && !nb::cast<bool>(nb::borrow(array).attr("is_leaf"));
      nb::object gradient = is_view ? nb::none() : kept_gradient(array);
      if (gradient.is_none()) gradient = {};
      else if (source.zero == ZeroGrad::to_none) resets_->keepers.push_back(nb::borrow(array));
      gradients_.replace(place.node, std::move(gradient));
    }
  }
  if (source.once && spec_->tied()) drop_repeated(root);
  if (source.zero == ZeroGrad::to_zeros) note_found(root);
}

// Reading a gradient may put another array in its place.
void State::note_found(std::uint32_t root) {
  const Node& top = spec_->nodes[root];
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p)
    resets_->found.push_back(nb::borrow(gradients_[spec_->places[p].node]));
}

namespace {

// A gradient as it lies in memory, with the leaf's axes.
struct Lying {
  ArrayView view;
  nb::object read_from;
  Fault fault;
  std::int64_t memory[2 * max_ndim];

  Lying(PyObject* gradient, const Place& place) : fault(read_any(gradient, view, read_from)) {
    if (has_view() && !place.axes.empty() && place.axes.size() == static_cast<std::size_t>(view.ndim))
      permute_axes(view, place.axes, memory);
  }
  bool has_view() const { return fault == Fault::none || fault == Fault::lazy; }
};

bool same_marks(PyObject* a, PyObject* b) {
  for (const char* mark : {"is_conj", "is_neg"})
    if (!nb::borrow(a).attr(mark)().equal(nb::borrow(b).attr(mark)())) return false;
  return true;
}

}  // namespace

// Whether two places hold one gradient: the same array, or views of the same elements.
bool State::same_gradient(const Place& a, const Place& b) {
  PyObject *first = gradients_[a.node], *second = gradients_[b.node];
  if (first == nullptr || second == nullptr) return false;
  if (first == second && a.axes == b.axes) return true;
  const Lying l(first, a), r(second, b);
  if (!l.has_view() || !r.has_view()) return false;
  const auto shape = [](const ArrayView& v) { return std::span(v.shape, static_cast<std::size_t>(v.ndim)); };
  if (first == second) return std::ranges::equal(shape(l.view), shape(r.view));  // otherwise its shape is an error
  return is_tie(l.view, r.view) && l.fault == r.fault && (l.fault != Fault::lazy || same_marks(first, second));
}

// Kept gradients have been accumulated: one that stands at several places of a leaf counts once, in the first of them.
void State::drop_repeated(std::uint32_t root) {
  own_objects();
  const Node& top = spec_->nodes[root];
  std::vector<std::pair<std::uint32_t, std::uint32_t>> tied;  // leaf, place
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
    const std::uint32_t leaf = spec_->places[p].leaf, first = spec_->first_place[leaf];
    if (p == first) continue;
    if (first >= top.place_begin) tied.emplace_back(leaf, first);
    tied.emplace_back(leaf, p);
  }
  std::ranges::sort(tied);
  tied.erase(std::ranges::unique(tied).begin(), tied.end());
  for (std::size_t i = 0; i < tied.size(); ++i) {
    const Place& place = spec_->places[tied[i].second];
    for (std::size_t before = i; before-- > 0 && tied[before].first == tied[i].first;)
      if (same_gradient(spec_->places[tied[before].second], place)) {
        gradients_.replace(place.node, {});
        break;
      }
  }
}

}  // namespace optimisers::python
