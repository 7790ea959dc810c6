// restore.cpp: every reason not to load a file into this optimiser, and the loading.
#include "files/restore.hpp"

#include <algorithm>
#include <cstring>

#include "device.hpp"
#include "environment.hpp"
#include "files/rename.hpp"
#include "flat/flat_parts.hpp"
#include "refuse.hpp"

namespace optimisers::inline OPT_ABI::files {
namespace {

constexpr std::size_t most_listed = 20;  // of each kind

std::string shown(const std::string& path) { return path.empty() ? "the model" : quoted(path); }

// "; missing in the file: "a", "b" and 3 more"
std::string list_text(const char* title, const std::vector<std::string>& items) {
  if (items.empty()) return "";
  std::string text = std::string("\n  ") + title + ": ";
  for (std::size_t i = 0; i < items.size() && i < most_listed; ++i) text += (i > 0 ? ", " : "") + items[i];
  if (items.size() > most_listed) text += " and " + std::to_string(items.size() - most_listed) + " more";
  return text;
}

template <class Range>
std::string names_text(const Range& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + std::string(name);
  return text.empty() ? "none" : text;
}

// Memory that no page of is touched before it is read into.
std::unique_ptr<std::byte[]> unwritten(std::uint64_t bytes) {
  return std::unique_ptr<std::byte[]>(new std::byte[std::size_t(bytes) + 1]);
}

std::string sides(const std::string& what, const std::string& file, const std::string& here) {
  return what + " " + file + " in the file, " + here + " here";
}

}  // namespace

Names::Names(const Manifest& manifest, const LoadOptions& options, const std::string& what) : manifest_(manifest) {
  std::vector<bool> fits(options.rename.size(), false);
  for (const SavedLeaf& leaf : manifest.leaves) {
    std::string name = leaf.path;
    for (std::size_t r = 0; r < options.rename.size(); ++r) {
      const auto found = renamed(leaf.path, options.rename[r].first, options.rename[r].second);
      if (!found) continue;
      fits[r] = true;
      name = *found;
      break;
    }
    const auto [place, is_new] = by_name_.emplace(name, here_.size());
    if (!is_new)
      refuse(what + shown(manifest.leaves[place->second].path) + " and " + shown(leaf.path) +
             " of the file are both called " + shown(name) + " here; change rename");
    here_.push_back(std::move(name));
  }
  for (std::size_t r = 0; r < fits.size(); ++r)
    if (!fits[r])
      refuse(what + "rename: no leaf of the file has a name that begins with " + quoted(options.rename[r].first) +
             ", or an earlier pattern takes it");
}

const SavedLeaf* Names::find(const std::string& path) const {
  const auto found = by_name_.find(path);
  return found == by_name_.end() ? nullptr : &manifest_.leaves[found->second];
}

Restore::Restore(const TensorFile& file, Optimiser& optimiser, std::span<const NamedLeaf> leaves,
                 const LoadOptions& options)
    : file_(file),
      optimiser_(optimiser),
      leaves_(leaves),
      options_(options),
      manifest_(manifest_from(file.manifest(), file.what())),
      names_(manifest_, options, file.what()) {
  match();
  for (std::size_t i = 0; i < leaves_.size(); ++i)
    if (sources_[i] != nullptr) {
      find_arrays(*sources_[i], leaves_[i].leaf);
      collect_rules(*sources_[i], leaves_[i].leaf);
    }
}

void Restore::match() {
  std::vector<std::string> missing, unexpected, different;
  std::vector<bool> used(manifest_.leaves.size(), false);
  for (const auto& [leaf, path] : leaves_) {
    const SavedLeaf* saved = names_.find(path);
    sources_.push_back(saved);
    if (saved == nullptr) {
      missing.push_back(shown(path));
      loaded_.fresh.push_back(path);
      continue;
    }
    used[std::size_t(saved - manifest_.leaves.data())] = true;
    if (const std::string found = difference(*saved, leaf); !found.empty())
      different.push_back(shown(path) + " has " + found);
  }
  for (std::size_t i = 0; i < used.size(); ++i) {
    if (used[i]) continue;
    unexpected.push_back(shown(names_.here(i)));
    loaded_.unused.push_back(manifest_.leaves[i].path);
  }
  if (options_.partial) missing.clear(), unexpected.clear();
  if (missing.empty() && unexpected.empty() && different.empty()) return;
  refuse(file_.what() + "the file does not fit this state" + list_text("missing in the file", missing) +
         list_text("unexpected in the file", unexpected) + list_text("different", different) +
         (missing.empty() && unexpected.empty() ? "" : "\n  the options rename and partial are the ways around"));
}

std::string Restore::difference(const SavedLeaf& saved, Optimiser::Leaf leaf) const {
  const LeafSpec& spec = optimiser_.spec(leaf);
  if (saved.shape != spec.shape) return sides("shape", shape_text(saved.shape), shape_text(spec.shape));
  if (saved.dtype != spec.dtype && (!options_.cast || is_complex_dtype(saved.dtype) != is_complex_dtype(spec.dtype)))
    return sides("dtype", std::string(name_of(saved.dtype)), std::string(name_of(spec.dtype))) +
           (options_.cast ? "" : " (cast= converts)");
  const SavedRule& rule = manifest_.rules[saved.rule];
  const auto& stages = spec.program.stages;
  const auto same_name = [](const SavedStage& a, const RuleValue& b) { return a.rule == b.info().text.name; };
  if (!std::equal(rule.stages.begin(), rule.stages.end(), stages.begin(), stages.end(), same_name)) {
    std::vector<std::string> here;
    here.reserve(stages.size());
    for (const RuleValue& r : stages) here.emplace_back(r.info().text.name);
    return sides("rule", text_of(rule), names_text(here));
  }
  const auto master_text = [](const std::optional<DType>& m) { return m ? std::string(name_of(*m)) : "none"; };
  if (rule.master != spec.program.master)
    return sides("MixedPrecision", master_text(rule.master), master_text(spec.program.master));
  for (std::size_t s = 0; s < stages.size(); ++s)
    if (std::string found = stage_difference(rule.stages[s], optimiser_.rule(leaf, int(s))); !found.empty())
      return found;
  return {};
}

std::string Restore::stage_difference(const SavedStage& saved, const RuleValue& rule) const {
  const RuleInfo& info = rule.info();
  if (saved.version != info.text.version)
    return sides("version of " + saved.rule, std::to_string(saved.version), std::to_string(info.text.version));
  std::vector<std::string> file, here, slots;
  for (const auto& [name, value] : saved.fields) file.push_back(name);
  for (const FieldInfo& field : info.fields) here.emplace_back(field.name);
  if (file != here) return sides("hyperparameters of " + saved.rule, names_text(file), names_text(here));
  for (int k = 0; k < rule.slot_count(); ++k) slots.emplace_back(info.slots[std::size_t(k)].name);
  if (saved.slots != slots) return sides("state arrays of " + saved.rule, names_text(saved.slots), names_text(slots));
  if (!std::equal(saved.clock.begin(), saved.clock.end(), info.clock.begin(), info.clock.end()))
    return sides("clock of " + saved.rule, names_text(saved.clock), names_text(info.clock));
  return {};
}

void Restore::find_arrays(const SavedLeaf& saved, Optimiser::Leaf leaf) {
  const LeafSpec& spec = optimiser_.spec(leaf);
  for (std::size_t s = 0; s < spec.program.stages.size(); ++s)
    for (const SlotView& slot : optimiser_.slots(leaf, int(s)))
      add_piece(slot_name(saved.path, s, slot.name), slot, spec);
  if (const auto master = optimiser_.master(leaf)) add_piece(master_name(saved.path), *master, spec);
}

void Restore::add_piece(const std::string& name, const SlotView& to, const LeafSpec& spec) {
  const Tensor* tensor = file_.find(name);
  if (tensor == nullptr) refuse(file_.what() + "the file lacks the array " + quoted(name), spec.name);
  const bool convertible =
      options_.cast && is_trainable(tensor->dtype) && is_complex_dtype(tensor->dtype) == is_complex_dtype(to.dtype);
  if (tensor->shape != spec.shape || (tensor->dtype != to.dtype && !convertible))
    refuse(file_.what() + "the array " + quoted(name) + " is " + std::string(name_of(tensor->dtype)) + " of shape " +
               shape_text(tensor->shape) + ", its leaf has " + std::string(name_of(to.dtype)) + " of shape " +
               shape_text(spec.shape),
           spec.name);
  pieces_.push_back({tensor, to, &spec, nullptr});
}

void Restore::collect_rules(const SavedLeaf& saved, Optimiser::Leaf leaf) {
  const SavedRule& rule = manifest_.rules[saved.rule];
  for (std::size_t s = 0; s < rule.stages.size(); ++s) {
    RuleValue value = optimiser_.rule(leaf, int(s));
    take_fields(value, rule.stages[s], file_.what());
    rules_.push_back({leaf, int(s), value});
  }
}

void Restore::read(bool in_place) {
  for (Piece& piece : pieces_) {
    if (in_place && piece.to.device == on_host && piece.to.dtype == piece.tensor->dtype) {
      file_.read(*piece.tensor, piece.to.data);
      continue;
    }
    piece.fresh = unwritten(piece.tensor->end - piece.tensor->begin);
    file_.read(*piece.tensor, piece.fresh.get());
    if (piece.to.dtype != piece.tensor->dtype) convert(piece);
    if (!in_place) continue;
    put(piece);
    piece.fresh.reset();
  }
}

std::uint64_t Restore::bytes_of(const Piece& piece) {
  return std::uint64_t(size_of(piece.spec->shape)) * std::uint64_t(size_of(piece.to.dtype));
}

void Restore::convert(Piece& piece) {
  auto converted = unwritten(bytes_of(piece));
  const FlatPart part{{.data = piece.fresh.get(),
                       .shape = piece.spec->shape.data(),
                       .ndim = std::int32_t(piece.spec->shape.size()),
                       .dtype = piece.tensor->dtype,
                       .present = true},
                      0,
                      size_of(piece.spec->shape)};
  pack_parts({&part, 1}, converted.get(), piece.to.dtype);
  piece.fresh = std::move(converted);
}

void Restore::put(const Piece& piece) {
  const auto bytes = std::size_t(bytes_of(piece));
  if (bytes == 0) return;
  if (piece.to.device == on_host) std::memcpy(piece.to.data, piece.fresh.get(), bytes);
  else accelerator().copy(piece.to.data, piece.to.device, piece.fresh.get(), on_host, bytes);
}

void Restore::commit() {
  optimiser_.set_rules(rules_, "loading");
  const Call here;
  for (const Piece& piece : pieces_)
    if (piece.fresh) put(piece);
  for (std::size_t i = 0; i < leaves_.size(); ++i) {
    if (sources_[i] == nullptr) continue;
    const Optimiser::Leaf leaf = leaves_[i].leaf;
    std::span<const double> rest(sources_[i]->clock);
    const auto& stages = optimiser_.spec(leaf).program.stages;
    for (int s = 0; s < int(stages.size()); ++s) {
      const std::size_t n = stages[std::size_t(s)].info().clock.size();
      if (n > 0) optimiser_.set_clock(leaf, s, rest.first(n));
      rest = rest.subspan(n);
    }
    optimiser_.set_frozen({&leaf, 1}, sources_[i]->frozen);
  }
  optimiser_.set_seen(manifest_.seen);
}

}  // namespace optimisers::inline OPT_ABI::files
