// manifest.hpp: what a file says of a state beside its arrays: rules, leaves, clocks.
#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "files/tensors.hpp"
#include "optimisers/optimiser.hpp"

namespace optimisers::inline OPT_ABI::files {

struct SavedStage {
  std::string rule;
  std::int64_t version = 1;
  std::vector<std::pair<std::string, Value>> fields;  // hyperparameters as they were
  std::vector<std::string> slots, clock;              // their names
};
struct SavedRule {
  std::optional<DType> master;
  std::vector<SavedStage> stages;
};
struct SavedLeaf {
  std::string path;
  std::vector<std::int64_t> shape;
  DType dtype = DType::float32;
  std::size_t rule = 0;  // in Manifest::rules
  bool frozen = false;
  std::vector<double> clock;  // of all stages, in order
};
struct Manifest {
  std::string library;  // the version that wrote it
  Seen seen;
  std::vector<SavedRule> rules;  // each once
  std::vector<SavedLeaf> leaves;
  std::vector<std::string> left_alone;  // leaves without a rule, for good
};

// A leaf of an optimiser and what it is called in files.
struct NamedLeaf {
  Optimiser::Leaf leaf;
  std::string path;
};

Manifest manifest_of(Optimiser& optimiser, std::span<const NamedLeaf> leaves);
std::string to_json(const Manifest& manifest);
// Throws Error(value) that begins with `what`.
Manifest manifest_from(const std::string& text, const std::string& what);

// What arrays are called: "state/enc.weight/0/m", "state/enc.weight/master".
std::string slot_name(const std::string& path, std::size_t stage, const std::string& slot);
std::string master_name(const std::string& path);

// The program a leaf had. Throws where it has rules that are not the library's.
Program program_from(const SavedRule& rule, const std::string& what);
// `rule` with the fields' values; throws for one out of range.
void take_fields(RuleValue& rule, const SavedStage& stage, const std::string& what);
std::string text_of(const SavedRule& rule);  // "ClipNorm, Adam"

// Writes a state and what is to be kept beside it.
void save(const std::string& path, Optimiser& optimiser, std::span<const NamedLeaf> leaves,
          std::span<const NamedArray> beside, std::vector<std::string> left_alone, const std::string& data);

}  // namespace optimisers::inline OPT_ABI::files
