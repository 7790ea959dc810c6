// restore.hpp: a file and the optimiser it is loaded into: matched by name, compared, read, and only then written.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "files/manifest.hpp"
#include "optimisers/files.hpp"

namespace optimisers::inline OPT_ABI::files {

// The manifest's leaves by what they are called here. Throws where two are called the same.
class Names {
 public:
  Names(const Manifest& manifest, const LoadOptions& options, const std::string& what);
  const SavedLeaf* find(const std::string& path) const;
  std::size_t size() const { return here_.size(); }
  const std::string& here(std::size_t leaf) const { return here_[leaf]; }

 private:
  const Manifest& manifest_;
  std::vector<std::string> here_;  // of each leaf of the manifest
  std::unordered_map<std::string, std::size_t> by_name_;
};

class Restore {
 public:
  // Compares. Throws Error(value) that lists what is missing, unexpected and different.
  Restore(const TensorFile& file, Optimiser& optimiser, std::span<const NamedLeaf> leaves, const LoadOptions& options);
  Restore(const Restore&) = delete;
  // Into memory of its own; or, where nobody has seen the optimiser yet, into its slots, which takes none.
  void read(bool in_place = false);
  // Nothing of the file is wrong: into the optimiser.
  void commit();

  const LoadResult& loaded() const { return loaded_; }
  // The leaf of the file for leaf i of those given; null: there is none.
  const SavedLeaf* source(std::size_t i) const { return sources_[i]; }

 private:
  struct Piece {  // an array on its way
    const Tensor* tensor;
    SlotView to;
    const LeafSpec* spec;
    std::unique_ptr<std::byte[]> fresh;  // null: where it belongs
  };
  void match();
  std::string difference(const SavedLeaf& saved, Optimiser::Leaf leaf) const;
  std::string stage_difference(const SavedStage& saved, const RuleValue& rule) const;
  void find_arrays(const SavedLeaf& saved, Optimiser::Leaf leaf);
  void add_piece(const std::string& name, const SlotView& to, const LeafSpec& spec);
  void collect_rules(const SavedLeaf& saved, Optimiser::Leaf leaf);
  static std::uint64_t bytes_of(const Piece& piece);
  static void convert(Piece& piece);
  static void put(const Piece& piece);

  const TensorFile& file_;
  Optimiser& optimiser_;
  std::span<const NamedLeaf> leaves_;
  const LoadOptions options_;
  const Manifest manifest_;
  const Names names_;
  std::vector<const SavedLeaf*> sources_;
  std::vector<Piece> pieces_;
  std::vector<Optimiser::StageRule> rules_;
  LoadResult loaded_;
};

}  // namespace optimisers::inline OPT_ABI::files
