// json.hpp: JSON as headers of files have it, read from outside without belief and without a copy, and written.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>

#include "refuse.hpp"

namespace optimisers::inline OPT_ABI::json {

// Walks over a text: each call reads one value and goes behind it. Throws Error(value) that begins with `what` where
// the text is something else: a key that comes twice, text that is not UTF-8, more than 64 levels.
class Reader {
 public:
  Reader(std::string_view text, std::string what) : text_(text), what_(std::move(what)) {}

  // Calls member(key) for each member, which is to read its value.
  template <class F>
  void object(F&& member) {
    std::unordered_set<std::string> known;
    for (bool more = begin('{', '}'); more; more = next('}')) {
      const std::string key = string();
      if (!known.insert(key).second) fail("has \"" + key + "\" twice");
      expect(':');
      member(key);
    }
    --depth_;
  }
  template <class F>
  void array(F&& item) {
    for (bool more = begin('[', ']'); more; more = next(']')) item();
    --depth_;
  }
  std::string string();
  std::int64_t integer();  // without fraction and exponent, of 64 bits
  std::int64_t integer(std::int64_t low, std::int64_t high);
  bool boolean();
  bool null();              // false: it is something else, and nothing was read
  char peek();              // the first character of the next value
  std::string_view skip();  // any value; its text
  void end();               // throws unless only spaces are left

  [[noreturn]] void fail(const std::string& how) const;

 private:
  bool begin(char open, char close);
  bool next(char close);
  void expect(char c);
  void skip_space();
  bool word(std::string_view text);
  unsigned hex4();
  std::string_view number();

  std::string_view text_;
  std::string what_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

bool is_utf8(std::string_view text);
std::string quoted(std::string_view utf8);

// Each double as the text that has all its bits, as Python's float.hex writes it but for trailing zeros:
// "-0x1.8p+1", "0x0p+0", "inf", "nan" (one that JSON's readers do not stumble over).
std::string hex(double value);
// Throws through the reader for what `hex` does not write.
double from_hex(std::string_view text, const Reader& reader);

}  // namespace optimisers::inline OPT_ABI::json
