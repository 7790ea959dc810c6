// lifetimes.cpp: what an update tells the libraries whose arrays it used: torch that values changed, and all of them
// what devices may still be reading.
#include <algorithm>
#include <iterator>

#include "arrays/lent.hpp"
#include "state/state.hpp"

namespace optimisers::python {

// The tensors that may be written, listed before they are: from then on nothing may fail.
void State::list_tensors(std::uint32_t root, PyObject* flat) {
  tensors_ = nb::object();
  if (flat == nullptr && !has_tensors_) return;
  nb::list tensors;
  if (flat != nullptr) {
    if (is_tensor(flat)) tensors.append(nb::borrow(flat));
  } else {
    const Node& top = spec_->nodes[root];
    for (std::uint32_t p = top.place_begin; p < top.place_end; ++p)
      if (PyObject* x = model_[spec_->places[p].node]; is_tensor(x)) tensors.append(nb::borrow(x));
  }
  if (nb::len(tensors) > 0) tensors_ = tensors;
}

void State::tell_torch(std::uint32_t root, PyObject* flat) {
  if (!tensors_.is_valid()) return;
  const nb::list tensors = nb::steal<nb::list>(tensors_.release());
  const Node& top = spec_->nodes[root];
  const auto update_at = [&](std::uint32_t p) -> const LeafUpdate& {
    return updates_[spec_->tied() ? static_cast<std::size_t>(update_of_leaf_[spec_->places[p].leaf])
                                  : p - top.place_begin];
  };
  // Those that were not written come off the list, from its end.
  auto left = static_cast<Py_ssize_t>(nb::len(tensors));
  for (std::uint32_t p = top.place_end; flat == nullptr && p-- > top.place_begin && left > 0;) {
    if (PyList_GET_ITEM(tensors.ptr(), left - 1) != model_[spec_->places[p].node]) continue;
    --left;
    if (!core_.wrote(update_at(p)) && PyList_SetSlice(tensors.ptr(), left, left + 1, nullptr) != 0) PyErr_Clear();
  }
  if (nb::len(tensors) > 0) bump_versions(tensors);
}

// Of the arrays as they were read; on devices.
Lent State::lent(std::uint32_t root, PyObject* flat) const {
  Lent lent;
  for (const nb::object& object : imported_) lent.add(object.ptr());
  if (flat != nullptr) lent.add(flat);
  if (flat != nullptr) lent.add(gradients_[root]);
  const Node& top = spec_->nodes[root];
  for (std::uint32_t p = top.place_begin; p < top.place_end; ++p) {
    if (flat == nullptr) lent.add(model_[spec_->places[p].node]);
    lent.add(gradients_[spec_->places[p].node]);
  }
  return lent;
}

void State::give_back(std::uint32_t root, PyObject* flat, std::optional<void*> stream) {
  if (streams_.empty() || !(has_imported_ || beside_torch_ || stream)) return;
  Lent all = lent(root, flat);
  all.give_back(streams_, stream);
  if (!all.of_jax().empty()) hold(all.of_jax());
}

// Until the device is done with what it has been given up to now. Nothing of a capture: a graph reads its arrays for
// ever.
void State::hold(std::span<const nb::object> objects) {
  std::vector<cuda::Mark> marks = streams_.marks();
  const bool enqueued = std::ranges::any_of(marks, [](const cuda::Mark& m) { return m.device() >= 0; });
  if (!enqueued) return;
  held_.insert(held_.end(), objects.begin(), objects.end());
  std::ranges::move(marks, std::back_inserter(held_until_));
}

// In a capture they stay: nothing can be waited for.
void State::wait_for_held() {
  const auto captured = [](const cuda::Mark& m) { return m.device() >= 0 && cuda::capturing(m.device()); };
  if (held_.empty() || std::ranges::any_of(held_until_, captured)) return;
  wait_for(held_until_);
  held_until_.clear();
  held_.clear();
}

}  // namespace optimisers::python
