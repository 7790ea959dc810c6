// adjust.cpp: hyperparameters of an optimiser that exists, and which leaves rest. All is checked before a row is
// written.
#include <algorithm>
#include <cstring>

#include "device.hpp"
#include "environment.hpp"
#include "step/state.hpp"

namespace optimisers::inline OPT_ABI {
namespace {

using Leaf = Optimiser::Leaf;

std::size_t size_of(FieldKind kind) {
  switch (kind) {
    case FieldKind::pair:
      return sizeof(Pair);
    case FieldKind::boolean:
      return sizeof(bool);
    case FieldKind::word:
      return 1;
    default:
      return sizeof(double);  // a number, a count
  }
}

double number_at(const std::byte* at) {
  double number;
  std::memcpy(&number, at, sizeof number);
  return number;
}

// The rows of some leaves, with those on devices sent there; put back if that fails.
class Rows {
 public:
  Rows(Optimiser::State& state, std::span<const Leaf> leaves) : state_(state) {
    if (state.devices.empty()) return;
    for (Leaf leaf : leaves) {
      if (state.leaves[leaf].device == on_host || (!on_devices_.empty() && on_devices_.back() == leaf)) continue;
      on_devices_.push_back(leaf);
      const std::byte* row = state.row_of(leaf);
      before_.insert(before_.end(), row, row + state.group_of(leaf).row_size);
    }
    there_.reserve(on_devices_.size());
  }

  void send() {
    try {
      for (auto& [index, device] : state_.devices) {
        there_.clear();
        for (Leaf leaf : on_devices_)
          if (state_.leaves[leaf].device == index) there_.push_back(leaf);
        device->send_rules(there_);
      }
    } catch (...) {
      const std::byte* saved = before_.data();
      for (Leaf leaf : on_devices_) {
        std::copy_n(saved, state_.group_of(leaf).row_size, state_.row_of(leaf));
        saved += state_.group_of(leaf).row_size;
      }
      throw;
    }
  }

 private:
  Optimiser::State& state_;
  std::vector<Leaf> on_devices_, there_;
  std::vector<std::byte> before_;
};

// What adjustments come to in the rows of a group: they are the same ones for all its leaves.
struct Piece {
  const Stage* stage;
  const FieldInfo* field;
  const Adjustment* of;
  RuleValue value;  // with the field set, unless it is scaled
  std::byte* at(std::byte* row) const { return row + stage->rule_offset + field->offset; }
};
// A stage that pieces change, and its rule in the leaf that was last looked at: most leaves of a group have the same.
struct Touched {
  const Stage* stage;
  RuleValue rule;
  bool known = false;
  bool is_as(const std::byte* now) const {
    return known && std::memcmp(rule.data(), now, std::size_t(stage->info->size)) == 0;
  }
};
struct Pieces {
  bool made = false;
  std::vector<Piece> list;
  std::vector<Touched> stages;
};

class Adjusting {
 public:
  Adjusting(Optimiser::State& state, std::span<const Adjustment> adjustments)
      : state_(state), adjustments_(adjustments), found_(adjustments.size()), pieces_(state.groups.size()) {}

  // Checks what the leaf would get.
  void look_at(Leaf leaf) {
    Pieces& pieces = pieces_[state_.leaves[leaf].group];
    if (!pieces.made) make(pieces, leaf);
    for (Piece& piece : pieces.list) {
      const std::byte* at = piece.at(state_.row_of(leaf));
      if (piece.of->scales) piece.value.set(*piece.field, scaled(piece, at));
      else if (!piece.of->levels) note(number_at(at));
    }
    for (Touched& stage : pieces.stages) {
      const std::byte* now = state_.row_of(leaf) + stage.stage->rule_offset;
      if (!stage.is_as(now)) check_overflow(pieces, stage, now, state_.specs[leaf]);
    }
  }

  void refuse_unknown() const {
    for (std::size_t i = 0; i < adjustments_.size(); ++i) {
      if (found_[i]) continue;
      std::vector<std::string> known = known_;
      std::sort(known.begin(), known.end());
      known.erase(std::unique(known.begin(), known.end()), known.end());
      std::string names;
      for (const auto& name : known) names += (names.empty() ? "" : ", ") + name;
      throw Error(ErrorKind::value, "adjust: no rule here has a field \"" + adjustments_[i].field + "\"; " +
                                        (names.empty() ? "there are none" : "fields are " + names));
    }
  }

  void write(Leaf leaf) const {
    std::byte* row = state_.row_of(leaf);
    for (const Piece& piece : pieces_[state_.leaves[leaf].group].list) {
      std::byte* at = piece.at(row);
      if (piece.of->scales) {
        const double number = scaled(piece, at);
        std::memcpy(at, &number, sizeof number);
      } else {
        const auto* from = static_cast<const std::byte*>(piece.value.data()) + piece.field->offset;
        std::memcpy(at, from, size_of(piece.field->kind));
      }
    }
  }

  Adjusted result() const { return noted_; }

 private:
  static void check_overflow(const Pieces& pieces, Touched& stage, const std::byte* now, const LeafSpec& spec) {
    stage.rule.load(now);
    stage.known = true;
    RuleValue then = stage.rule;
    for (const Piece& piece : pieces.list)
      if (piece.stage == stage.stage)
        then.set(*piece.field, piece.of->scales ? scaled(piece, now + piece.field->offset) : piece.of->value);
    check_fits(spec, then, "adjust");
  }

  static double scaled(const Piece& piece, const std::byte* at) {
    return number_at(at) * std::get<double>(piece.of->value);
  }

  void note(double number) {
    noted_.lowest = std::min(noted_.lowest, number);
    noted_.highest = std::max(noted_.highest, number);
  }

  void make(Pieces& pieces, Leaf leaf) {
    pieces.made = true;
    const auto& stages = state_.group_of(leaf).stages;
    for (const Stage& stage : stages) {
      const std::size_t before = pieces.list.size();
      for (const FieldInfo& field : stage.info->fields) {
        known_.emplace_back(field.name);
        for (std::size_t i = 0; i < adjustments_.size(); ++i) {
          const Adjustment& a = adjustments_[i];
          if (a.field != field.name || (a.rule != nullptr && !a.rule->same_rule(*stage.info)) ||
              (a.stage >= 0 && a.stage != int(&stage - stages.data())))
            continue;
          if (field.structural) refuse_structural(*stage.info, field, state_.specs[leaf].name);
          Piece piece{&stage, &field, &a, RuleValue(*stage.info)};
          if (!a.scales) piece.value.set(field, a.value);
          pieces.list.push_back(piece);
          found_[i] = true;
        }
      }
      if (pieces.list.size() > before) pieces.stages.push_back({&stage, RuleValue(*stage.info)});
    }
  }

  [[noreturn]] static void refuse_structural(const RuleInfo& info, const FieldInfo& field, const std::string& name) {
    throw Error(ErrorKind::value,
                std::string("adjust: ") + field.name + " of " + info.text.name + " at \"" + name +
                    "\" decides which state arrays exist and cannot be changed; call setup with a new rule",
                name);
  }

  Optimiser::State& state_;
  std::span<const Adjustment> adjustments_;
  std::vector<bool> found_;
  std::vector<Pieces> pieces_;  // by group
  std::vector<std::string> known_;
  Adjusted noted_;
};

}  // namespace

RuleValue Optimiser::State::rule(Leaf leaf, int stage) const {
  const Stage& s = groups[leaves[leaf].group].stages[std::size_t(stage)];
  RuleValue value(*s.info);
  value.load(row_of(leaf) + s.rule_offset);
  return value;
}

RuleValue Optimiser::rule(Leaf leaf, int stage) const { return state_->rule(leaf, stage); }
void Optimiser::set_frozen(std::span<const Leaf> leaves, bool frozen) {
  for (Leaf leaf : leaves) state_->leaves[leaf].frozen = frozen;
}

Adjusted Optimiser::change(std::span<const Leaf> leaves, std::span<const Adjustment> adjustments) {
  const Call here;
  Adjusting adjusting(*state_, adjustments);
  for (Leaf leaf : leaves) adjusting.look_at(leaf);
  adjusting.refuse_unknown();
  if (adjusting.result().lowest < adjusting.result().highest) return adjusting.result();
  Rows rows(*state_, leaves);
  for (Leaf leaf : leaves) adjusting.write(leaf);
  rows.send();
  return adjusting.result();
}

void Optimiser::adjust(std::span<const Leaf> leaves, std::span<const std::pair<std::string, Value>> fields, int stage) {
  std::vector<Adjustment> adjustments;
  for (const auto& [field, value] : fields) adjustments.push_back({.field = field, .value = value, .stage = stage});
  change(leaves, adjustments);
}

void Optimiser::set_rules(std::span<const StageRule> rules, const char* call) {
  std::vector<Leaf> leaves;
  for (const StageRule& r : rules) {
    const Stage& s = state_->group_of(r.leaf).stages[std::size_t(r.stage)];
    if (!r.rule.info().same_rule(*s.info) || r.rule.slot_count() != s.slot_count)
      throw Error(ErrorKind::value,
                  std::string(call) + ": " + r.rule.info().text.name + " at \"" + spec(r.leaf).name +
                      "\" would need other state arrays than there are; call setup with a new rule",
                  spec(r.leaf).name);
    r.rule.check();
    check_fits(spec(r.leaf), r.rule, call);
    leaves.push_back(r.leaf);
  }
  Rows rows(*state_, leaves);
  for (const StageRule& r : rules) {
    const Stage& s = state_->group_of(r.leaf).stages[std::size_t(r.stage)];
    std::memcpy(state_->row_of(r.leaf) + s.rule_offset, r.rule.data(), std::size_t(s.info->size));
  }
  rows.send();
}

void Optimiser::set_rule(Leaf leaf, int stage, const RuleValue& rule) {
  const StageRule one{leaf, stage, rule};
  set_rules({&one, 1});
}

}  // namespace optimisers::inline OPT_ABI
