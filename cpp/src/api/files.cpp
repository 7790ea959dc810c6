// files.cpp: states saved and loaded: their leaves by name, and parameters beside them.
#include <algorithm>

#include "api/state_data.hpp"
#include "device.hpp"
#include "files/restore.hpp"
#include "flat/flat_parts.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

std::string parameter_name(const std::string& leaf) { return "model/" + leaf; }

// Parameters on their way from a file.
class Parameters {
 public:
  Parameters(const files::TensorFile& file, const files::Restore& restore, std::span<const files::NamedLeaf> leaves,
             std::span<const LeafUpdate> call) {
    for (std::size_t i = 0; i < leaves.size(); ++i)
      if (const files::SavedLeaf* source = restore.source(i))
        add(file, parameter_name(source->path), leaves[i].path, call[leaves[i].leaf].x);
  }
  void put() const {
    for (const Piece& piece : pieces_) {
      if (piece.to.device != on_host) {
        accelerator().copy(piece.to.data, piece.to.device, piece.fresh.data(), on_host, piece.fresh.size());
        continue;
      }
      const FlatPart part{piece.to, 0, size_of(piece.to)};
      unpack_parts(piece.fresh.data(), piece.dtype, {&part, 1});
    }
  }

 private:
  struct Piece {
    ArrayView to;
    DType dtype;
    std::vector<std::byte> fresh;
  };
  void add(const files::TensorFile& file, const std::string& name, const std::string& leaf, const ArrayView& to) {
    if (!to.writable) refuse("load: parameter at " + quoted(leaf) + " is const", leaf);
    if (to.device != on_host && !is_contiguous(to))
      refuse("load: parameter at " + quoted(leaf) + " is on a GPU and does not lie in one piece", leaf);
    const files::Tensor* tensor = file.find(name);
    if (tensor == nullptr)
      refuse(file.what() + "the file has no parameters of " + quoted(leaf) + "; it was saved without", leaf);
    const bool same = tensor->dtype == to.dtype ||
                      (to.device == on_host && is_complex_dtype(tensor->dtype) == is_complex_dtype(to.dtype));
    if (!same || !is_trainable(tensor->dtype) || size_of(tensor->shape) != size_of(to))
      refuse(file.what() + "the parameter " + quoted(leaf) + " is " + std::string(name_of(tensor->dtype)) +
                 " of shape " + shape_text(tensor->shape) + " in the file",
             leaf);
    pieces_.push_back({to, tensor->dtype, std::vector<std::byte>(std::size_t(tensor->end - tensor->begin))});
    file.read(*tensor, pieces_.back().fresh.data());
  }
  std::vector<Piece> pieces_;
};

}  // namespace

std::vector<files::NamedLeaf> State::Data::saved_leaves() const {
  std::vector<files::NamedLeaf> leaves;
  for (const auto leaf : all())
    if (has_rule[leaf]) leaves.push_back({leaf, optimiser.spec(leaf).name});
  return leaves;
}

void State::Data::save(const std::string& path, const Arrays* x) {
  InUse in_use(busy);
  std::vector<files::NamedArray> beside;
  std::vector<std::string> left_alone;
  if (x != nullptr) place_for("save", *x);
  for (const auto leaf : all()) {
    const std::string& name = optimiser.spec(leaf).name;
    if (!has_rule[leaf]) left_alone.push_back(name);
    if (x != nullptr) beside.push_back({parameter_name(name), call[leaf].x});
  }
  files::save(path, optimiser, saved_leaves(), beside, std::move(left_alone), "{}");
}

LoadResult State::Data::load(const std::string& path, const MutableArrays* x, const LoadOptions& options) {
  InUse in_use(busy);
  const std::vector<files::NamedLeaf> leaves = saved_leaves();
  const files::TensorFile file(path);
  files::Restore restore(file, optimiser, leaves, options);
  std::optional<Parameters> parameters;
  if (x != nullptr) {
    place_for("load", *x);
    parameters.emplace(file, restore, leaves, call);
  }
  restore.read();
  file.read_rest();
  restore.commit();
  if (parameters) parameters->put();
  return restore.loaded();
}

void State::save(const std::string& path) { data_->save(path, nullptr); }
void State::save(const std::string& path, const Arrays& x) { data_->save(path, &x); }
LoadResult State::load(const std::string& path, const LoadOptions& options) {
  return data_->load(path, nullptr, options);
}
LoadResult State::load(const std::string& path, const MutableArrays& x, const LoadOptions& options) {
  return data_->load(path, &x, options);
}

State State::from_file(const std::string& path, const Model& model, const LoadOptions& options,
                       const SetupOptions& setup_options) {
  const files::TensorFile file(path);
  const files::Manifest manifest = files::manifest_from(file.manifest(), file.what());
  const files::Names names(manifest, options, file.what());
  const Chooser choose = [&](const std::string& name) -> std::optional<Program> {
    if (const files::SavedLeaf* leaf = names.find(name)) return program_from(manifest.rules[leaf->rule], file.what());
    if (std::ranges::find(manifest.left_alone, name) != manifest.left_alone.end()) return std::nullopt;
    refuse(file.what() + "it has no rule for " + quoted(name) + "; use setup, and load into its state with partial",
           name);
  };
  State state(choose, model, setup_options);
  const std::vector<files::NamedLeaf> leaves = state.data_->saved_leaves();
  files::Restore restore(file, state.data_->optimiser, leaves, options);
  restore.read(true);
  file.read_rest();
  restore.commit();
  return state;
}

}  // namespace optimisers::inline OPT_ABI
