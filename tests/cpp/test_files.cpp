// test_files.cpp: states saved to files and loaded: exact, strict, and nothing changed by a file that is damaged.
#include <gtest/gtest.h>
#include <optimisers/optimisers.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optimisers/optimisers.hpp>
#include <random>

#include "files/checksum.hpp"
#include "files/json.hpp"
#include "files/rename.hpp"
#include "files/tensors.hpp"

namespace optimisers::test {
namespace {

using Floats = std::vector<float>;
namespace fs = std::filesystem;

// A folder of its own for each test, gone afterwards.
class Files : public testing::Test {
 protected:
  Files() : folder_(fs::temp_directory_path() / ("optimisers_files_" + std::to_string(std::random_device{}()))) {
    fs::create_directory(folder_);
  }
  ~Files() override { fs::remove_all(folder_); }
  std::string path(const char* name = "state.safetensors") const { return (folder_ / name).string(); }
  fs::path folder_;
};

std::string contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void write(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

// Slots of a leaf of two stages, and clocks, as one list of numbers.
std::vector<double> numbers_of(const State& state) {
  std::vector<double> all;
  for (std::size_t i = 0; i < state.size(); ++i) {
    const ConstLeaf leaf = state.leaf(i);
    all.push_back(leaf.frozen());
    for (const char* slot : {"m", "v"})
      for (const float x : leaf.slot<float>(slot)) all.push_back(x);
    for (const char* clock : {"beta1_t", "beta2_t"}) all.push_back(leaf.clock(clock));
    for (const Pair beta : {std::get<Pair>(leaf.rule(1).get(*leaf.rule(1).info().field("beta")))})
      all.insert(all.end(), {beta.first, beta.second});
  }
  return all;
}

struct Model2 {
  Floats w = {1, 2, 3, 4, 5, 6}, b = {1, -1};
  State state = setup(Chain{ClipGrad{}, Adam{.eta = 0.1}}, {{"w", w, {2, 3}}, {"b", b}});
  void step(float g) {
    const Floats gw(6, g), gb(2, -g);
    state.update({w, b}, {gw, gb});
  }
};

TEST_F(Files, WhatIsSavedIsLoadedAndGoesOnTheSame) {
  Model2 a, b;
  a.step(0.5f), a.step(-0.25f);
  a.state["b"].adjust("beta", Pair{0.8, 0.99});
  a.state["b"].freeze();
  a.state.save(path(), {a.w, a.b});
  b.step(7);
  const LoadResult loaded = b.state.load(path(), {b.w, b.b});
  EXPECT_TRUE(loaded.fresh.empty() && loaded.unused.empty());
  EXPECT_EQ(numbers_of(a.state), numbers_of(b.state));
  EXPECT_EQ(a.w, b.w);
  a.state["b"].thaw(), b.state["b"].thaw();
  a.step(0.125f), b.step(0.125f);
  EXPECT_EQ(a.w, b.w);
  EXPECT_EQ(a.b, b.b);
}

TEST_F(Files, AStateComesFromTheFileAlone) {
  Model2 a;
  a.step(0.5f);
  a.state.save(path());
  State b = State::from_file(path(), {{"w", a.w, {2, 3}}, {"b", a.b}});
  EXPECT_EQ(numbers_of(a.state), numbers_of(b));
}

TEST_F(Files, LoadingIsByName) {
  Model2 a;
  a.step(0.5f);
  a.state.save(path());
  Floats w(6), b(2);
  State other = setup(Chain{ClipGrad{}, Adam{.eta = 0.1}}, {{"b", b}, {"w", w, {2, 3}}});
  other.load(path());
  EXPECT_EQ(other["b"].slot<float>("m")[0], a.state["b"].slot<float>("m")[0]);
  State renamed = setup(Chain{ClipGrad{}, Adam{}}, {{"net.b", b}, {"net.w", w, {2, 3}}});
  renamed.load(path(), {.rename = {{"", "net"}}});
  EXPECT_EQ(renamed["net.b"].slot<float>("m")[0], a.state["b"].slot<float>("m")[0]);
}

TEST_F(Files, AMismatchNamesWhatIsMissingUnexpectedAndDifferent) {
  Model2 a;
  a.state.save(path());
  Floats w(6), c(2);
  State other = setup(Chain{ClipGrad{}, Adam{}}, {{"w", w, {3, 2}}, {"c", c}});
  const std::string message = message_of([&] { other.load(path()); });
  for (const char* part : {"missing in the file: \"c\"", "unexpected in the file: \"b\"",
                           "\"w\" has shape (2, 3) in the file, (3, 2) here"})
    EXPECT_NE(message.find(part), std::string::npos) << message;
  State partial = setup(Chain{ClipGrad{}, Adam{}}, {{"w", w, {2, 3}}, {"c", c}});
  const LoadResult loaded = partial.load(path(), {.partial = true});
  EXPECT_EQ(loaded.fresh, std::vector<std::string>{"c"});
  EXPECT_EQ(loaded.unused, std::vector<std::string>{"b"});
  State rule = setup(Momentum{}, {{"w", w, {2, 3}}, {"b", c}});
  EXPECT_NE(message_of([&] { rule.load(path()); }).find("rule ClipGrad, Adam in the file, Momentum here"),
            std::string::npos);
}

TEST_F(Files, CastConvertsState) {
  Model2 a;
  a.step(0.5f);
  a.state.save(path());
  std::vector<double> w(6), b(2);
  State wide = setup(Chain{ClipGrad{}, Adam{}}, {{"w", w, {2, 3}}, {"b", b}});
  EXPECT_NE(message_of([&] { wide.load(path()); }).find("dtype float32 in the file, float64 here"), std::string::npos);
  wide.load(path(), {.cast = true});
  EXPECT_EQ(wide["w"].slot<double>("v")[5], double(a.state["w"].slot<float>("v")[5]));
}

// Every single bit of a small file, and every length.
TEST_F(Files, EveryFlippedBitAndEveryCutIsAnErrorThatChangesNothing) {
  Model2 a, b;
  a.step(0.5f);
  a.state.save(path(), {a.w, a.b});
  const std::string whole = contents(path());
  b.step(3);
  const auto before = numbers_of(b.state);
  const Floats w = b.w;
  const auto refused = [&](const std::string& damaged) {
    write(path("damaged"), damaged);
    try {
      b.state.load(path("damaged"), {b.w, b.b});
      return false;
    } catch (const Error&) {
      return true;
    }
  };
  for (std::size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] = static_cast<char>(damaged[i] ^ (1 << (i % 8)));
    ASSERT_TRUE(refused(damaged)) << "byte " << i;
    if (i % 7 == 0) ASSERT_TRUE(refused(whole.substr(0, i))) << "cut at " << i;
  }
  ASSERT_TRUE(refused(whole + '\0'));
  EXPECT_EQ(numbers_of(b.state), before);
  EXPECT_EQ(b.w, w);
  EXPECT_FALSE(refused(whole));
}

TEST_F(Files, AFailedSaveLeavesTheOldFile) {
  Model2 a;
  a.state.save(path());
  const std::string whole = contents(path());
  fs::create_directory(folder_ / "folder");
  EXPECT_THROW(a.state.save((folder_ / "folder").string()), FileError);
  EXPECT_THROW(a.state.save(path("nowhere/state")), FileError);
  write(path("state.safetensors.part"), "left by a killed process");
  a.step(1);
  a.state.save(path());
  EXPECT_NE(contents(path()), whole);
  EXPECT_FALSE(fs::exists(path("state.safetensors.part")));
  EXPECT_THROW(a.state.load(path("nothing")), FileError);
}

TEST_F(Files, TheModeIsKeptAndLinksAreFollowed) {
  Model2 a;
  a.state.save(path());
  fs::permissions(path(), fs::perms(0640));
  fs::create_symlink("state.safetensors", folder_ / "link");
  a.state.save(path("link"));
  EXPECT_TRUE(fs::is_symlink(folder_ / "link"));
  EXPECT_EQ(fs::status(path()).permissions(), fs::perms(0640));
}

TEST_F(Files, LeavesWithoutARuleStayWithout) {
  Floats x(2, 1), y(2, 1);
  const auto choose = [](const std::string& name) -> std::optional<AnyRule> {
    if (name == "y") return std::nullopt;
    return AnyRule("Adam");
  };
  State a = setup(choose, {{"x", x}, {"y", y}});
  a.update({x, y}, {x, y});
  a.save(path(), {x, y});
  State b = State::from_file(path(), {{"x", x}, {"y", y}});
  EXPECT_EQ(b["x"].clock("beta1_t"), 0.9);
  EXPECT_THROW(b["y"].thaw(), Error);
}

TEST_F(Files, TheCInterfaceWritesAndReadsTheSameFiles) {
  Model2 a;
  a.step(0.5f);
  a.state.save(path());
  const std::int64_t shape[] = {2, 3};
  optimisers_array x[] = {{a.w.data(), 6, OPTIMISERS_FLOAT32, 2, shape, "w"},
                          {a.b.data(), 2, OPTIMISERS_FLOAT32, 0, nullptr, "b"}};
  optimisers_state* state = nullptr;
  ASSERT_EQ(optimisers_create("OptimiserChain(ClipGrad(), Adam(0.1))", x, 2, nullptr, &state), OPTIMISERS_OK);
  EXPECT_EQ(optimisers_load(state, path("nothing").c_str(), nullptr, 0, nullptr), OPTIMISERS_FILE);
  EXPECT_EQ(optimisers_load(state, path().c_str(), x, 2, nullptr), OPTIMISERS_VALUE);  // no parameters in it
  ASSERT_EQ(optimisers_load(state, path().c_str(), nullptr, 0, nullptr), OPTIMISERS_OK) << optimisers_last_error();
  ASSERT_EQ(optimisers_save(state, path("c").c_str(), nullptr, 0), OPTIMISERS_OK);
  EXPECT_EQ(contents(path("c")), contents(path()));
  const char* rename[] = {"w", "b", "b", "w"};
  const optimisers_load_options options{sizeof options, rename, 2, 0, 0};
  EXPECT_EQ(optimisers_load(state, path().c_str(), nullptr, 0, &options), OPTIMISERS_VALUE);
  optimisers_destroy(state);
}

TEST(FileNames, BeginningsAreReplaced) {
  using files::renamed;
  EXPECT_EQ(renamed("old.a.b", "old", "new"), "new.a.b");
  EXPECT_EQ(renamed("old.a.b", "old.*", "new.*"), "new.a.b");
  EXPECT_EQ(renamed("older.a", "old", "new"), std::nullopt);
  EXPECT_EQ(renamed("module.a", "module", ""), "a");
  EXPECT_EQ(renamed("a", "", "module"), "module.a");
  EXPECT_EQ(renamed("l.3.attn.w", "l.*.attn", "h.*.mixer"), "h.3.mixer.w");
  EXPECT_EQ(renamed("a.b.c.norm.w", "**.norm", "**.ln"), "a.b.c.ln.w");
  EXPECT_EQ(renamed("a.x.b.y", "*.x.*.y", "*.*"), "a.b");
  EXPECT_THROW(renamed("a.b", "a", "*"), Error);
}

TEST(FileNumbers, DoublesComeBackBitForBit) {
  const json::Reader reader("", "test");
  std::mt19937_64 random(1);
  std::vector<double> values{0.0, -0.0, 1, -1, 0.1, 1e-308, 4.9e-324, 1.7976931348623157e308, INFINITY, -INFINITY};
  for (int i = 0; i < 10000; ++i)
    if (const double d = std::bit_cast<double>(random()); d == d) values.push_back(d);
  for (const double d : values)
    EXPECT_EQ(std::bit_cast<std::uint64_t>(json::from_hex(json::hex(d), reader)), std::bit_cast<std::uint64_t>(d));
  EXPECT_EQ(json::hex(-3), "-0x1.8p+1");
  for (const char* text :
       {"", "1", "0x", "0x2p+0", "0x1", "0x1p0", "0x1p+1024", "0x1.p", "0x1.00000000000000p+0", "-nan"})
    EXPECT_THROW(json::from_hex(text, reader), Error) << text;
}

TEST(FileText, JsonIsReadStrictly) {
  const auto reads = [](const std::string& text) {
    try {
      json::Reader reader(text, "text");
      reader.skip();
      reader.end();
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  for (const char* good : {"{}", "[1,2,{\"a\":[]}]", "\"\\u00e9\\ud83d\\ude00\"", " null ", "[true,false,-1.5e3]"})
    EXPECT_TRUE(reads(good)) << good;
  for (const char* bad : {"", "{", "[1,]", "{\"a\":1,\"a\":2}", "{\"a\"}", "\"\\x\"", "\"\\ud800\"", "\"\n\"", "[1 2]",
                          "{} {}", "\"\xff\"", "nul"})
    EXPECT_FALSE(reads(bad)) << bad;
  EXPECT_TRUE(reads(std::string(60, '[') + std::string(60, ']')));
  EXPECT_FALSE(reads(std::string(1000, '[') + std::string(1000, ']')));
}

TEST(FileChecksums, AreThoseOfZlib) {
  EXPECT_EQ(crc32("123456789", 9), 0xcbf43926U);
  std::vector<unsigned char> bytes(5000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(i * 2654435761U >> 13);
  for (const std::size_t n : {0UL, 1UL, 15UL, 16UL, 63UL, 64UL, 65UL, 127UL, 128UL, 129UL, 1000UL, 4999UL}) {
    std::uint32_t in_parts = 0;
    for (std::size_t i = 0; i < n; i += 7) in_parts = crc32(&bytes[i], std::min<std::size_t>(7, n - i), in_parts);
    EXPECT_EQ(crc32(bytes.data(), n), in_parts) << n;
  }
}

}  // namespace
}  // namespace optimisers::test
