// bind_files.cpp: files of states: written from a state and arrays beside it, and restored into one.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>

#include "arrays/device_array.hpp"
#include "bind/bind.hpp"
#include "errors.hpp"
#include "files/rename.hpp"
#include "files/restore.hpp"
#include "state/state.hpp"
#include "unlocked.hpp"

namespace optimisers::python {
namespace {

using files::NamedLeaf;

// The core's leaves by their names in files, one of which each leaf has. What stands before a rule written in Python is
// a leaf of the core of its own.
std::vector<NamedLeaf> named_leaves(const State& state, const std::vector<std::string>& names) {
  if (names.size() != state.spec().leaf_count())
    value_error("there are " + std::to_string(state.spec().leaf_count()) + " leaves, got " +
                std::to_string(names.size()) + " names");
  std::vector<NamedLeaf> leaves;
  for (std::uint32_t i = 0; i < names.size(); ++i) {
    const std::vector<std::uint32_t> parts = state.core_leaves(i);
    for (std::size_t k = 0; k + 1 < parts.size(); ++k)
      leaves.push_back({parts[k], names[i] + "/before/" + std::to_string(k)});
    leaves.push_back({parts.back(), names[i]});
  }
  return leaves;
}

// Arrays as the core writes them, and what keeps them.
struct Beside {
  std::vector<files::NamedArray> arrays;
  std::vector<nb::object> kept;
};
Beside beside_from(const std::vector<std::pair<std::string, nb::object>>& given) {
  Beside beside;
  for (const auto& [name, object] : given) {
    ArrayView view;
    nb::object from;
    if (const Fault fault = read_any(object.ptr(), view, from); fault != Fault::none)
      type_error("save: array at \"" + name + "\" " + fault_text(object.ptr(), fault));
    if (view.device != on_host && !is_contiguous(view))
      value_error("save: array at \"" + name + "\" is on a device and does not lie in one piece");
    beside.kept.push_back(from);
    beside.kept.push_back(object);
    beside.arrays.push_back({name, view});
  }
  return beside;
}

void save_state(State& state, const nb::bytes& path, const std::vector<std::string>& names,
                const std::vector<std::pair<std::string, nb::object>>& beside, std::vector<std::string> left_alone,
                const std::string& data) {
  state.check_node(0);
  const Beside arrays = beside_from(beside);
  Use use(state);
  const std::vector<NamedLeaf> leaves = named_leaves(state, names);
  Unlocked unlocked;
  files::save(std::string(path.c_str(), path.size()), state.core(), leaves, arrays.arrays, std::move(left_alone), data);
}

// A file that is being loaded.
struct File {
  explicit File(const nb::bytes& path) : file(std::string(path.c_str(), path.size())) {}
  const files::TensorFile file;
};

const files::Tensor& tensor_of(const File& f, const std::string& name) {
  const files::Tensor* tensor = f.file.find(name);
  if (tensor == nullptr) value_error(f.file.what() + "the file lacks the array \"" + name + "\"");
  return *tensor;
}

nb::list tensors_of(const File& f) {
  nb::list tensors;
  for (const files::Tensor& t : f.file.tensors()) {
    nb::list shape;
    for (const std::int64_t n : t.shape) shape.append(n);
    tensors.append(nb::make_tuple(t.name, nb::str(std::string(name_of(t.dtype)).c_str()), nb::tuple(shape)));
  }
  return tensors;
}

// The bytes of an array.
nb::object bytes_of(const File& f, const std::string& name) {
  const files::Tensor& tensor = tensor_of(f, name);
  const std::int64_t size[] = {static_cast<std::int64_t>(tensor.end - tensor.begin)};
  nb::object array = numpy_empty(DType::uint8, size);
  ArrayView view;
  if (read_array(array.ptr(), view) != Fault::none) value_error("load: no memory for an array");
  Unlocked unlocked;
  f.file.read(tensor, view.data);
  return array;
}

struct Restoring {
  Restoring(const File& f, nb::object core, const std::vector<std::string>& names,
            std::vector<std::pair<std::string, std::string>> rename, bool partial, bool cast)
      : core(std::move(core)),
        state(nb::cast<State&>(this->core)),
        leaves((state.check_node(0), named_leaves(state, names))) {
    Use use(state);
    restore =
        std::make_unique<files::Restore>(f.file, state.core(), leaves, LoadOptions{std::move(rename), partial, cast});
  }
  Restoring(const Restoring&) = delete;
  void read(bool in_place) {
    Use use(state);
    Unlocked unlocked;
    restore->read(in_place);
  }
  void commit() {
    Use use(state);
    Unlocked unlocked;
    restore->commit();
  }
  nb::object core;
  State& state;
  std::vector<NamedLeaf> leaves;
  std::unique_ptr<files::Restore> restore;  // once the state is in use
};

// What each leaf of the state is called in the file; None: it is not there.
nb::list sources_of(const Restoring& r) {
  nb::list sources;
  std::size_t at = 0;
  for (std::uint32_t i = 0; i < r.state.spec().leaf_count(); ++i) {
    at += r.state.core_leaves(i).size();
    const files::SavedLeaf* source = r.restore->source(at - 1);
    sources.append(source == nullptr ? nb::none() : nb::object(nb::str(source->path.c_str(), source->path.size())));
  }
  return sources;
}

nb::object renamed(const std::string& path, const std::string& pattern, const std::string& replacement) {
  const auto found = files::renamed(path, pattern, replacement);
  return found ? nb::object(nb::str(found->c_str(), found->size())) : nb::none();
}

}  // namespace

void bind_files(nb::module_& m) {
  m.def("save_state", &save_state);
  m.def("renamed", &renamed);
  nb::class_<File>(m, "File")
      .def(nb::init<const nb::bytes&>())
      .def_prop_ro("manifest", [](const File& f) { return f.file.manifest(); })
      .def_prop_ro("data", [](const File& f) { return f.file.data(); })
      .def("tensors", &tensors_of)
      .def("read", &bytes_of)
      .def("read_rest", [](const File& f) {
        Unlocked unlocked;
        f.file.read_rest();
      });
  nb::class_<Restoring>(m, "Restoring")
      .def(nb::init<const File&, nb::object, const std::vector<std::string>&,
                    std::vector<std::pair<std::string, std::string>>, bool, bool>(),
           nb::keep_alive<1, 2>())
      .def("read", &Restoring::read)
      .def("commit", &Restoring::commit)
      .def("sources", &sources_of)
      .def_prop_ro("fresh", [](const Restoring& r) { return r.restore->loaded().fresh; })
      .def_prop_ro("unused", [](const Restoring& r) { return r.restore->loaded().unused; });
}

}  // namespace optimisers::python
