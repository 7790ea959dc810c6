// json.cpp: a reader of JSON that keeps nothing, and text with all bits of a double.
#include "files/json.hpp"

#include <bit>
#include <charconv>
#include <limits>

namespace optimisers::inline OPT_ABI::json {
namespace {

constexpr int deepest = 64;
constexpr int mantissa_bits = 52, bias = 1023;
constexpr std::uint64_t mantissa_mask = (std::uint64_t(1) << mantissa_bits) - 1;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
int hex_digit(char c) {
  if (is_digit(c)) return c - '0';
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

void append_utf8(std::string& to, unsigned code) {
  const auto put = [&](unsigned byte) { to += static_cast<char>(byte); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xc0 | code >> 6);
  } else {
    if (code < 0x10000) {
      put(0xe0 | code >> 12);
    } else {
      put(0xf0 | code >> 18);
      put(0x80 | (code >> 12 & 0x3f));
    }
    put(0x80 | (code >> 6 & 0x3f));
  }
  put(0x80 | (code & 0x3f));
}

}  // namespace

void Reader::fail(const std::string& how) const {
  refuse(what_ + " " + how + " (at byte " + std::to_string(at_) + ")");
}

void Reader::skip_space() {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r'))
    ++at_;
}
char Reader::peek() {
  skip_space();
  return at_ < text_.size() ? text_[at_] : '\0';
}
void Reader::expect(char c) {
  if (peek() != c) fail(std::string("lacks a '") + c + "'");
  ++at_;
}
bool Reader::begin(char open, char close) {
  expect(open);
  if (++depth_ > deepest) fail("is nested more than " + std::to_string(deepest) + " deep");
  if (peek() != close) return true;
  ++at_;
  return false;
}
bool Reader::next(char close) {
  const char c = peek();
  if (c != ',' && c != close) fail(std::string("lacks a ',' or '") + close + "'");
  ++at_;
  return c == ',';
}
void Reader::end() {
  if (peek() != '\0' || at_ != text_.size()) fail("goes on behind its end");
}
bool Reader::word(std::string_view expected) {
  skip_space();
  if (text_.substr(at_, expected.size()) != expected) return false;
  at_ += expected.size();
  return true;
}
bool Reader::null() { return word("null"); }
bool Reader::boolean() {
  if (word("true")) return true;
  if (!word("false")) fail("lacks true or false");
  return false;
}

unsigned Reader::hex4() {
  unsigned code = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    const int digit = at_ < text_.size() ? hex_digit(text_[at_]) : -1;
    if (digit < 0) fail("has a \\u without four digits");
    code = code << 4 | unsigned(digit);
  }
  return code;
}

std::string Reader::string() {
  expect('"');
  std::string read;
  for (;; ++at_) {
    if (at_ >= text_.size()) fail("ends inside a text");
    const char c = text_[at_];
    if (c == '"') break;
    if (static_cast<unsigned char>(c) < 0x20) fail("has a control character in a text");
    if (c != '\\') {
      read += c;
      continue;
    }
    if (++at_ >= text_.size()) fail("ends inside a text");
    constexpr std::string_view names = "\"\\/bfnrt", values = "\"\\/\b\f\n\r\t";
    if (const auto i = names.find(text_[at_]); i != std::string_view::npos) {
      read += values[i];
      continue;
    }
    if (text_[at_] != 'u') fail("has an unknown escape");
    ++at_;
    unsigned code = hex4();
    if (code >= 0xd800 && code < 0xdc00 && text_.substr(at_, 2) == "\\u") {
      at_ += 2;
      const unsigned low = hex4();
      if (low < 0xdc00 || low > 0xdfff) fail("has half a surrogate pair");
      code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code >= 0xd800 && code < 0xe000) {
      fail("has half a surrogate pair");
    }
    append_utf8(read, code);
    --at_;  // the loop goes on
  }
  ++at_;
  if (!is_utf8(read)) fail("has text that is not UTF-8");
  return read;
}

std::string_view Reader::number() {
  skip_space();
  const std::size_t start = at_;
  while (at_ < text_.size() && (is_digit(text_[at_]) || text_[at_] == '-' || text_[at_] == '+' || text_[at_] == '.' ||
                                text_[at_] == 'e' || text_[at_] == 'E'))
    ++at_;
  if (start == at_) fail("lacks a value");
  return text_.substr(start, at_ - start);
}

std::int64_t Reader::integer() {
  const std::string_view digits = number();
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || end != digits.data() + digits.size())
    fail("has " + std::string(digits) + " for an integer");
  return value;
}
std::int64_t Reader::integer(std::int64_t low, std::int64_t high) {
  const std::int64_t value = integer();
  if (value < low || value > high) fail("has a number out of range: " + std::to_string(value));
  return value;
}

std::string_view Reader::skip() {
  const char c = peek();
  const std::size_t start = at_;
  if (c == '{') object([&](const std::string&) { skip(); });
  else if (c == '[') array([&] { skip(); });
  else if (c == '"') (void)string();
  else if (!word("null") && !word("true") && !word("false")) (void)number();
  return text_.substr(start, at_ - start);
}

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = [&](std::size_t k) { return k < text.size() ? static_cast<unsigned char>(text[k]) : 0U; };
    const unsigned first = byte(i);
    const std::size_t n = first < 0x80                    ? 1
                          : first >= 0xc2 && first < 0xe0 ? 2
                          : (first & 0xf0) == 0xe0        ? 3
                          : first >= 0xf0 && first < 0xf5 ? 4
                                                          : 0;
    if (n == 0) return false;
    for (std::size_t k = 1; k < n; ++k)
      if ((byte(i + k) & 0xc0) != 0x80) return false;
    const unsigned second = byte(i + 1);
    if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) || (first == 0xf0 && second < 0x90) ||
        (first == 0xf4 && second > 0x8f))
      return false;
    i += n;
  }
  return true;
}

std::string quoted(std::string_view utf8) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text = "\"";
  for (const char c : utf8) {
    if (c == '"' || c == '\\') text += '\\';
    if (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f) text += c;
    else (text += "\\u00") += {digits[c >> 4], digits[c & 15]};
  }
  return text + '"';
}

std::string hex(double value) {
  constexpr char digits[] = "0123456789abcdef";
  const auto bits = std::bit_cast<std::uint64_t>(value);
  const int exponent = int(bits >> mantissa_bits & 0x7ff);
  std::uint64_t mantissa = bits & mantissa_mask;
  if (exponent == 0x7ff && mantissa != 0) return "nan";
  std::string text = bits >> 63 != 0 ? "-" : "";
  if (exponent == 0x7ff) return text + "inf";
  text += exponent == 0 ? "0x0" : "0x1";
  const int power = exponent != 0 ? exponent - bias : mantissa != 0 ? 1 - bias : 0;
  if (mantissa != 0) text += '.';
  for (; mantissa != 0; mantissa = mantissa << 4 & mantissa_mask) text += digits[mantissa >> (mantissa_bits - 4)];
  return text + 'p' + (power < 0 ? "" : "+") + std::to_string(power);
}

double from_hex(std::string_view text, const Reader& reader) {
  const auto fail = [&]() { reader.fail("has \"" + std::string(text) + "\" for a number"); };
  std::string_view rest = text;
  const bool minus = rest.starts_with('-');
  if (minus) rest.remove_prefix(1);
  const std::uint64_t sign = minus ? std::uint64_t(1) << 63 : 0;
  if (rest == "inf") return std::bit_cast<double>(sign | std::uint64_t(0x7ff) << mantissa_bits);
  if (text == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (!rest.starts_with("0x0") && !rest.starts_with("0x1")) fail();
  const bool normal = rest[2] == '1';
  rest.remove_prefix(3);
  std::uint64_t mantissa = 0;
  int place = mantissa_bits;
  if (rest.starts_with('.')) {
    rest.remove_prefix(1);
    for (; !rest.empty() && hex_digit(rest[0]) >= 0; rest.remove_prefix(1)) {
      if (place == 0) fail();
      mantissa |= std::uint64_t(hex_digit(rest[0])) << (place -= 4);
    }
  }
  int power = 0;
  if (!rest.starts_with("p+") && !rest.starts_with("p-")) fail();
  rest.remove_prefix(rest[1] == '+' ? 2 : 1);
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), power);
  if (error != std::errc() || end != rest.data() + rest.size() || power < 1 - bias || power > bias) fail();
  if (!normal && power != (mantissa != 0 ? 1 - bias : 0)) fail();
  return std::bit_cast<double>(sign | std::uint64_t(normal ? power + bias : 0) << mantissa_bits | mantissa);
}

}  // namespace optimisers::inline OPT_ABI::json
