// manifest.cpp: a state's rules, leaves and clocks as JSON, and back.
#include "files/manifest.hpp"

#include <map>

#include "environment.hpp"
#include "files/json.hpp"
#include "optimisers/parse.hpp"

namespace optimisers::inline OPT_ABI::files {
namespace {

template <class Range, class F>
std::string listed(const Range& range, F&& text) {
  std::string all = "[";
  for (const auto& item : range) all += (all.size() > 1 ? "," : "") + text(item);
  return all + "]";
}
std::string listed(const std::vector<std::string>& names) { return listed(names, json::quoted); }

std::string json_of(const Value& value) {
  const auto number = [](double d) { return json::quoted(json::hex(d)); };
  if (const auto* pair = std::get_if<Pair>(&value)) return "[" + number(pair->first) + "," + number(pair->second) + "]";
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* word = std::get_if<std::string>(&value)) return json::quoted(*word);
  return number(std::get<double>(value));
}

double number_from(json::Reader& reader) { return json::from_hex(reader.string(), reader); }

Value value_from(json::Reader& reader) {
  if (reader.peek() == '[') {
    std::vector<double> numbers;
    reader.array([&] { numbers.push_back(number_from(reader)); });
    if (numbers.size() != 2) reader.fail("has a pair of " + std::to_string(numbers.size()));
    return Pair{numbers[0], numbers[1]};
  }
  if (reader.peek() != '"') return reader.boolean();
  std::string text = reader.string();
  const bool is_word = !text.empty() && text[0] >= 'a' && text[0] <= 'z' && text != "inf" && text != "nan";
  if (is_word) return text;
  return json::from_hex(text, reader);
}

std::string json_of(const SavedStage& stage) {
  std::string fields = "{";
  for (const auto& [name, value] : stage.fields)
    fields += (fields.size() > 1 ? "," : "") + json::quoted(name) + ":" + json_of(value);
  return "{\"rule\":" + json::quoted(stage.rule) + ",\"version\":" + std::to_string(stage.version) +
         ",\"fields\":" + fields + "},\"slots\":" + listed(stage.slots) + ",\"clock\":" + listed(stage.clock) + "}";
}

std::string json_of(const SavedRule& rule) {
  return "{\"master\":" + (rule.master ? json::quoted(name_of(*rule.master)) : "null") +
         ",\"stages\":" + listed(rule.stages, [](const SavedStage& s) { return json_of(s); }) + "}";
}

std::string json_of(const SavedLeaf& leaf) {
  return "{\"path\":" + json::quoted(leaf.path) +
         ",\"shape\":" + listed(leaf.shape, [](std::int64_t n) { return std::to_string(n); }) +
         ",\"dtype\":" + json::quoted(name_of(leaf.dtype)) + ",\"rule\":" + std::to_string(leaf.rule) +
         ",\"frozen\":" + (leaf.frozen ? "true" : "false") +
         ",\"clock\":" + listed(leaf.clock, [](double d) { return json::quoted(json::hex(d)); }) + "}";
}

// Counts members, of which each is to be there.
class Members {
 public:
  Members(json::Reader& reader, int expected) : reader_(reader), expected_(expected) {}
  bool is(const std::string& key, const char* name) { return key == name && ++seen_ > 0; }
  void unknown(const std::string& key) const { reader_.fail("says \"" + key + "\", which this version does not know"); }
  void check(const char* of) const {
    if (seen_ != expected_) reader_.fail(std::string("lacks something of ") + of);
  }

 private:
  json::Reader& reader_;
  int expected_, seen_ = 0;
};

std::vector<std::string> names_from(json::Reader& reader) {
  std::vector<std::string> names;
  reader.array([&] { names.push_back(reader.string()); });
  return names;
}

DType dtype_from(json::Reader& reader) {
  const std::string name = reader.string();
  const auto dtype = dtype_from_name(name);
  if (!dtype || !is_trainable(*dtype)) reader.fail("has a leaf of an unknown dtype, \"" + name + "\"");
  return *dtype;
}

SavedStage stage_from(json::Reader& reader) {
  SavedStage stage;
  Members members(reader, 5);
  reader.object([&](const std::string& key) {
    if (members.is(key, "rule")) stage.rule = reader.string();
    else if (members.is(key, "version")) stage.version = reader.integer();
    else if (members.is(key, "fields"))
      reader.object([&](const std::string& field) { stage.fields.emplace_back(field, value_from(reader)); });
    else if (members.is(key, "slots")) stage.slots = names_from(reader);
    else if (members.is(key, "clock")) stage.clock = names_from(reader);
    else members.unknown(key);
  });
  members.check("a stage");
  return stage;
}

SavedRule rule_from(json::Reader& reader) {
  SavedRule rule;
  Members members(reader, 2);
  reader.object([&](const std::string& key) {
    if (members.is(key, "master")) {
      if (!reader.null()) rule.master = dtype_from(reader);
    } else if (members.is(key, "stages")) {
      reader.array([&] { rule.stages.push_back(stage_from(reader)); });
    } else {
      members.unknown(key);
    }
  });
  members.check("a rule");
  return rule;
}

SavedLeaf leaf_from(json::Reader& reader) {
  SavedLeaf leaf;
  Members members(reader, 6);
  reader.object([&](const std::string& key) {
    if (members.is(key, "path")) leaf.path = reader.string();
    else if (members.is(key, "shape"))
      reader.array([&] { leaf.shape.push_back(reader.integer(0, std::int64_t(1) << 58)); });
    else if (members.is(key, "dtype")) leaf.dtype = dtype_from(reader);
    else if (members.is(key, "rule")) leaf.rule = std::size_t(reader.integer(0, std::int64_t(1) << 40));
    else if (members.is(key, "frozen")) leaf.frozen = reader.boolean();
    else if (members.is(key, "clock")) reader.array([&] { leaf.clock.push_back(number_from(reader)); });
    else members.unknown(key);
  });
  members.check("a leaf");
  return leaf;
}

SavedRule saved_rule(Optimiser& optimiser, Optimiser::Leaf leaf) {
  const Program& program = optimiser.spec(leaf).program;
  SavedRule saved{program.master, {}};
  for (int s = 0; s < int(program.stages.size()); ++s) {
    const RuleValue rule = optimiser.rule(leaf, s);
    const RuleInfo& info = rule.info();
    SavedStage stage{info.text.name, info.text.version, {}, {}, {info.clock.begin(), info.clock.end()}};
    for (const FieldInfo& field : info.fields) stage.fields.emplace_back(field.name, rule.get(field));
    for (int k = 0; k < rule.slot_count(); ++k) stage.slots.emplace_back(info.slots[std::size_t(k)].name);
    saved.stages.push_back(std::move(stage));
  }
  return saved;
}

}  // namespace

Manifest manifest_of(Optimiser& optimiser, std::span<const NamedLeaf> leaves) {
  Manifest manifest{version, optimiser.seen(), {}, {}, {}};
  std::map<std::string, std::size_t> known;  // rules by their text
  for (const auto& [leaf, path] : leaves) {
    const LeafSpec& spec = optimiser.spec(leaf);
    SavedRule rule = saved_rule(optimiser, leaf);
    const auto [place, is_new] = known.try_emplace(json_of(rule), manifest.rules.size());
    if (is_new) manifest.rules.push_back(std::move(rule));
    SavedLeaf saved{path, spec.shape, spec.dtype, place->second, optimiser.frozen(leaf), {}};
    for (int s = 0; s < int(spec.program.stages.size()); ++s)
      for (const double value : optimiser.clock(leaf, s)) saved.clock.push_back(value);
    manifest.leaves.push_back(std::move(saved));
  }
  return manifest;
}

std::string to_json(const Manifest& m) {
  return "{\"library\":" + json::quoted(m.library) + ",\"skipped\":" + std::to_string(m.seen.skipped) +
         ",\"norm\":" + (m.seen.norm ? json::quoted(json::hex(*m.seen.norm)) : "null") +
         ",\"rules\":" + listed(m.rules, [](const SavedRule& r) { return json_of(r); }) +
         ",\"leaves\":" + listed(m.leaves, [](const SavedLeaf& l) { return json_of(l); }) +
         ",\"left_alone\":" + listed(m.left_alone) + "}";
}

Manifest manifest_from(const std::string& text, const std::string& what) {
  json::Reader reader(text, what + "the manifest");
  Manifest m;
  Members members(reader, 6);
  reader.object([&](const std::string& key) {
    if (members.is(key, "library")) m.library = reader.string();
    else if (members.is(key, "skipped")) m.seen.skipped = reader.integer(0, INT64_MAX);
    else if (members.is(key, "norm")) {
      if (!reader.null()) m.seen.norm = number_from(reader);
    } else if (members.is(key, "rules")) reader.array([&] { m.rules.push_back(rule_from(reader)); });
    else if (members.is(key, "leaves")) reader.array([&] { m.leaves.push_back(leaf_from(reader)); });
    else if (members.is(key, "left_alone")) m.left_alone = names_from(reader);
    else members.unknown(key);
  });
  reader.end();
  members.check("the state");
  for (const SavedLeaf& leaf : m.leaves) {
    if (leaf.rule >= m.rules.size()) reader.fail("gives \"" + leaf.path + "\" a rule that is not there");
    std::size_t scalars = 0;
    for (const SavedStage& stage : m.rules[leaf.rule].stages) scalars += stage.clock.size();
    if (scalars != leaf.clock.size()) reader.fail("has too few or too many clocks for \"" + leaf.path + "\"");
  }
  return m;
}

std::string slot_name(const std::string& path, std::size_t stage, const std::string& slot) {
  return "state/" + path + "/" + std::to_string(stage) + "/" + slot;
}
std::string master_name(const std::string& path) { return "state/" + path + "/master"; }

void take_fields(RuleValue& rule, const SavedStage& stage, const std::string& what) {
  for (const auto& [name, value] : stage.fields) {
    const FieldInfo* field = rule.info().field(name);
    if (field == nullptr)
      refuse(std::string(what).append(stage.rule).append(" has no field ").append(quoted(name)).append(" here"));
    try {
      rule.set(*field, value);
    } catch (const Error& error) {
      throw Error(error.kind(), what + error.what());
    }
  }
}

Program program_from(const SavedRule& saved, const std::string& what) {
  Program program{{}, saved.master};
  for (const SavedStage& stage : saved.stages) {
    const RuleInfo* info = find_rule(stage.rule);
    if (info == nullptr)
      refuse(what + stage.rule + " is no rule of this library; set up a state with it and load into that");
    program.stages.emplace_back(*info);
    take_fields(program.stages.back(), stage, what);
  }
  return program;
}

std::string text_of(const SavedRule& rule) {
  std::string text;
  for (const SavedStage& stage : rule.stages) text += (text.empty() ? "" : ", ") + stage.rule;
  return text.empty() ? "none" : text;
}

void save(const std::string& path, Optimiser& optimiser, std::span<const NamedLeaf> leaves,
          std::span<const NamedArray> beside, std::vector<std::string> left_alone, const std::string& data) {
  const Call here;
  Manifest manifest = manifest_of(optimiser, leaves);
  manifest.left_alone = std::move(left_alone);
  std::vector<NamedArray> arrays;
  for (const auto& [leaf, name] : leaves) {
    const LeafSpec& spec = optimiser.spec(leaf);
    const auto add = [&](std::string called, const SlotView& slot) {
      arrays.push_back({std::move(called),
                        {.data = slot.data,
                         .shape = spec.shape.data(),
                         .ndim = std::int32_t(spec.shape.size()),
                         .dtype = slot.dtype,
                         .present = true,
                         .device = slot.device}});
    };
    for (int s = 0; s < int(spec.program.stages.size()); ++s)
      for (const SlotView& slot : optimiser.slots(leaf, s)) add(slot_name(name, std::size_t(s), slot.name), slot);
    if (const auto master = optimiser.master(leaf)) add(master_name(name), *master);
  }
  arrays.insert(arrays.end(), beside.begin(), beside.end());
  write_tensors(path, arrays, to_json(manifest), data);
}

}  // namespace optimisers::inline OPT_ABI::files
