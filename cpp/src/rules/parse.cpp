// parse.cpp: a small recursive reader of rules written as text.
#include "optimisers/parse.hpp"

#include <limits>
#include <locale>
#include <optional>
#include <set>
#include <sstream>

#include "environment.hpp"
#include "optimisers/chain.hpp"

namespace optimisers::inline OPT_ABI {

AnyRule::AnyRule(std::string_view name)
    : RuleValue([name]() -> const RuleInfo& {
        if (const RuleInfo* info = find_rule(name)) return *info;
        std::string names;
        for (const RuleInfo& rule : rule_registry()) names += (names.empty() ? "" : ", ") + std::string(rule.text.name);
        throw Error(ErrorKind::value,
                    "no rule is called \"" + std::string(name.substr(0, 100)) + "\"; rules are " + names);
      }()) {}

AnyRule AnyRule::with_value(std::string_view name, const Value& value) const {
  AnyRule changed = *this;
  const FieldInfo* field = info().field(name);
  if (field == nullptr) {
    std::string names;
    for (const FieldInfo& f : info().fields) names += (names.empty() ? "" : ", ") + std::string(f.name);
    throw Error(ErrorKind::value, std::string(info().text.name) + " has no field \"" + std::string(name) + "\"" +
                                      (names.empty() ? "" : "; fields are " + names));
  }
  changed.set(*field, value);
  return changed;
}

namespace {

constexpr int deepest = 64;  // chains in chains

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Program outermost() {
    Program program;
    const std::size_t start = at_;
    if (name() == "MixedPrecision") {
      expect('(');
      rule(program, 1);
      program.master = DType::float32;
      if (accept(',')) program.master = dtype();
      expect(')');
    } else {
      at_ = start;
      rule(program, 0);
    }
    end();
    return program;
  }

  std::vector<std::pair<std::string, Value>> fields() {
    std::vector<std::pair<std::string, Value>> all;
    std::set<std::string> given;
    if (!at_end()) do {
        const std::size_t start = at_;
        std::string field = field_name();
        once(field, given, start);
        expect('=');
        all.emplace_back(std::move(field), value());
      } while (accept(','));
    end();
    return all;
  }

 private:
  void rule(Program& program, int depth) {
    if (depth > deepest) fail("chains nested at most " + std::to_string(deepest) + " deep");
    const std::size_t start = at_;
    const std::string_view called = name();
    if (called.empty()) fail("the name of a rule");
    if (called == "OptimiserChain" || called == "Chain") {
      expect('(');
      if (!accept(')')) {
        do rule(program, depth + 1);
        while (accept(','));
        expect(')');
      }
      return;
    }
    if (called == "MixedPrecision") {
      at_ = start;
      fail("MixedPrecision outermost only; here a rule or a chain");
    }
    AnyRule made(called);
    if (accept('(') && !accept(')')) {
      arguments(made);
      expect(')');
    }
    made.check();
    program.stages.push_back(made);
  }

  void arguments(AnyRule& made) {
    std::size_t position = 0;
    bool named = false;
    std::set<std::string> given;
    do {
      const std::size_t start = at_;
      std::string field = field_name();
      if (!field.empty() && accept('=')) {
        named = true;
      } else {
        at_ = start;
        if (named) fail("name=value: positional arguments come first");
        if (position == made.info().fields.size()) fail("at most " + std::to_string(position) + " arguments");
        field = made.info().fields[position++].name;
      }
      once(field, given, start);
      made = made.with(field, value());
    } while (accept(','));
  }

  void once(const std::string& field, std::set<std::string>& given, std::size_t start) {
    if (given.insert(field).second) return;
    at_ = start;
    skip_space();
    fail(field + " once only");
  }

  Value value() {
    skip_space();
    if (at_ < text_.size() && (text_[at_] == '"' || text_[at_] == '\'')) return quoted();
    if (accept('(')) {
      const double first = number();
      expect(',');
      const double second = number();
      expect(')');
      return Pair{first, second};
    }
    const std::size_t start = at_;
    const std::string_view word = name();
    if (word == "True" || word == "true") return true;
    if (word == "False" || word == "false") return false;
    at_ = start;
    return number();
  }

  std::string quoted() {
    const char mark = text_[at_++];
    const std::size_t close = text_.find(mark, at_);
    if (close == std::string_view::npos) fail(std::string("a closing ") + mark);
    const std::string_view inside = text_.substr(at_, close - at_);
    at_ = close + 1;
    return std::string(inside);
  }

  double number() {
    skip_space();
    const std::size_t start = at_;
    const bool minus = at_ < text_.size() && text_[at_] == '-';
    if (at_ < text_.size() && (text_[at_] == '-' || text_[at_] == '+')) ++at_;
    if (name() == "inf")
      return minus ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
    at_ = start;
    while (at_ < text_.size() && (is_digit(text_[at_]) || text_[at_] == '.' || text_[at_] == 'e' || text_[at_] == 'E' ||
                                  text_[at_] == '-' || text_[at_] == '+'))
      ++at_;
    const DefaultNumbers as_usual;
    std::istringstream digits{std::string(text_.substr(start, at_ - start))};
    digits.imbue(std::locale::classic());
    double d = 0;
    if (!(digits >> d) || digits.peek() != std::istringstream::traits_type::eof()) {
      at_ = start;
      fail("a number");
    }
    return d;
  }

  DType dtype() {
    const std::size_t start = at_;
    if (field_name() == "dtype") expect('=');
    else at_ = start;
    skip_space();
    const std::size_t place = at_;
    const Value text = value();
    const auto* word = std::get_if<std::string>(&text);
    const auto found = word ? dtype_from_name(*word) : std::nullopt;
    if (found && (*found == DType::float32 || *found == DType::float64)) return *found;
    at_ = place;
    fail("\"float32\" or \"float64\"");
  }

  // Python writes lambda_ and throw as lambda_ and throw: a last underscore does not count.
  std::string field_name() {
    std::string field(name());
    if (!field.empty() && field.back() == '_') field.pop_back();
    return field;
  }

  std::string_view name() {
    skip_space();
    const std::size_t start = at_;
    while (at_ < text_.size() && (is_letter(text_[at_]) || (at_ > start && is_digit(text_[at_])))) ++at_;
    return text_.substr(start, at_ - start);
  }

  void skip_space() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }
  bool at_end() {
    skip_space();
    return at_ == text_.size();
  }
  bool accept(char c) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) fail(std::string("'") + c + "'");
  }
  void end() {
    if (!at_end()) fail("nothing more");
  }
  [[noreturn]] void fail(const std::string& expected) const {
    throw Error(ErrorKind::value, "rule \"" + std::string(text_.substr(0, 200)) + "\", character " +
                                      std::to_string(at_ + 1) + ": expected " + expected);
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

Program parse_program(std::string_view text) { return Reader(text).outermost(); }
std::vector<std::pair<std::string, Value>> parse_fields(std::string_view text) { return Reader(text).fields(); }

}  // namespace optimisers::inline OPT_ABI
