// The safetensors format: its exact bytes, what the parser refuses, and random damage, which never
// does more than throw.
#include "checkpoint/safetensors.h"

#include <bit>
#include <string_view>

#include "sample.h"
#include "support/catch.h"

using namespace checkpoint_test;

namespace {

// A file in memory.
class MemoryFile : public base::OutputFile {
 public:
  void write(std::span<const std::byte> bytes) override {
    text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  void commit() override {}
  std::string text;
};

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

checkpoint::TensorSource make_source(const std::string& name, const backend::Shape& shape,
                                     const std::vector<float>& elements) {
  return {name, shape, [&elements](int64_t first, std::span<float> target) {
            std::memcpy(target.data(), elements.data() + first, target.size_bytes());
          }};
}

std::string make_file(std::string_view header, std::string_view data) {
  std::string text;
  for (int i = 0; i < 8; ++i) text += char(uint64_t{header.size()} >> (8 * i) & 0xFF);
  return text + std::string(header) + std::string(data);
}

std::string refusal_of_file(std::string_view file) {
  return bad_input_of([&] { checkpoint::parse_safetensors(bytes_of(file), "x.safetensors"); });
}

// Reads every byte that a file's tensors claim: a sanitizer would see one outside. Returns whether
// the file was taken.
bool parse_and_touch(const std::string& file) {
  try {
    const auto tensors = checkpoint::parse_safetensors(bytes_of(file), "x");
    size_t bytes = 0;
    for (const auto& [name, view] : tensors)
      bytes +=
          std::string(reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size()).size();
    REQUIRE(bytes <= file.size());
    return true;
  } catch (const base::Error& error) {
    REQUIRE(error.code() == base::ExitCode::kBadInput);
    return false;
  }
}

std::string make_valid_file() {
  MemoryFile file;
  const std::vector<float> elements(6, 1.0f);
  checkpoint::write_safetensors(
      file, {.name = "valid",
             .tensors = {make_source("a", {2, 3}, elements), make_source("b.c", {}, elements),
                         make_source("empty", {0}, elements)}});
  return file.text;
}

}  // namespace

TEST_CASE("A file has exactly these bytes", "[safetensors]") {
  using namespace std::string_view_literals;
  MemoryFile file;
  const std::vector<float> a = {1, 2, 3, 4, 5, 6};
  const std::vector<float> b = {-0.0f};
  const auto record = checkpoint::write_safetensors(
      file, {.name = "exact",
             .tensors = {make_source("a", {2, 3}, a), make_source("b", {}, b)},
             .bytes = {{.name = "c", .bytes = {std::byte{7}, std::byte{255}}}}});
  std::string expected(
      "\xc8\0\0\0\0\0\0\0"
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"F32","shape":[],"data_offsets":[24,28]},)"
      R"("c":{"dtype":"U8","shape":[2],"data_offsets":[28,30]}}    )"
      "\0\0\x80\x3f"
      "\0\0\0\x40"
      "\0\0\x40\x40"
      "\0\0\x80\x40"
      "\0\0\xa0\x40"
      "\0\0\xc0\x40"
      "\0\0\0\x80"
      "\x07\xff"sv);
  REQUIRE(file.text == expected);
  REQUIRE(record.bytes == int64_t(expected.size()));
  REQUIRE(record.sha256 == base::sha256(bytes_of(expected)));
}

TEST_CASE("Tensors larger than the buffer are asked for piece by piece", "[safetensors]") {
  const int64_t count = (int64_t{2} << 20) + 3;
  std::vector<std::pair<int64_t, int64_t>> pieces;
  const checkpoint::TensorSource tensor = {
      "large", {count}, [&](int64_t first, std::span<float> target) {
        pieces.emplace_back(first, int64_t(target.size()));
        for (size_t i = 0; i < target.size(); ++i) target[i] = float(first + int64_t(i));
      }};
  MemoryFile file;
  checkpoint::write_safetensors(file, {.name = "large", .tensors = {tensor}});
  int64_t next = 0;
  for (const auto& [first, piece] : pieces) {
    REQUIRE(first == next);
    REQUIRE(piece <= int64_t{1} << 20);
    next += piece;
  }
  REQUIRE(next == count);

  const auto view = checkpoint::parse_safetensors(bytes_of(file.text), "x").at("large");
  REQUIRE(view.shape == std::vector<int64_t>{count});
  std::vector<float> found(static_cast<size_t>(count));
  REQUIRE(view.bytes.size() == found.size() * sizeof(float));
  std::memcpy(found.data(), view.bytes.data(), view.bytes.size());
  int64_t wrong = 0;
  for (int64_t i = 0; i < count; ++i) wrong += found[size_t(i)] != float(i);
  REQUIRE(wrong == 0);
}

TEST_CASE("Files of other writers are read", "[safetensors]") {
  // The header is neither padded nor in the order of the data, and other dtypes stand beside F32.
  const std::string file =
      make_file(R"({"second":{"shape":[2],"data_offsets":[4,8],"dtype":"BF16"},)"
                R"( "first":{"dtype":"F32","data_offsets":[0,4],"shape":[1,1,1,1,1,1]},)"
                R"( "none":{"dtype":"I64","shape":[9,0],"data_offsets":[4,4]}})",
                "abcdefgh");
  const auto tensors = checkpoint::parse_safetensors(bytes_of(file), "x");
  REQUIRE(tensors.size() == 3);
  REQUIRE(tensors.at("second").dtype == "BF16");
  REQUIRE(tensors.at("second").shape == std::vector<int64_t>{2});
  REQUIRE(std::ranges::equal(tensors.at("second").bytes, bytes_of("efgh")));
  REQUIRE(tensors.at("first").shape.size() == 6);
  REQUIRE(std::ranges::equal(tensors.at("first").bytes, bytes_of("abcd")));
  REQUIRE(tensors.at("none").bytes.empty());
  REQUIRE(checkpoint::parse_safetensors(bytes_of(make_file("{}", "")), "x").empty());
}

TEST_CASE("Whatever is not exactly the format is refused with a reason", "[safetensors]") {
  struct Case {
    const char* header;
    const char* found;
  };
  // All of them stand before eight bytes of data.
  const Case cases[] = {
      {R"([])", "expected an object"},
      {R"({)", "parse error"},
      {R"({"a":1})", "a: expected an object"},
      {R"({"a":{"shape":[2],"data_offsets":[0,8]}})", "a.dtype: missing"},
      {R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", "unknown dtype \"F31\""},
      {R"({"a":{"dtype":7,"shape":[2],"data_offsets":[0,8]}})", "a.dtype: expected a string"},
      {R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", "a.shape: missing"},
      {R"({"a":{"dtype":"F32","shape":{"b":2},"data_offsets":[0,8]}})",
       "a.shape: expected an array"},
      {R"({"a":{"dtype":"F32","shape":["2"],"data_offsets":[0,8]}})",
       "a.shape[0]: expected an integer"},
      {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", "impossible extent -2"},
      {R"({"a":{"dtype":"F32","shape":[-1,-2],"data_offsets":[0,8]}})", "impossible extent -1"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387906],"data_offsets":[0,8]}})",
       "impossible extent"},
      {R"({"a":{"dtype":"F32","shape":[2147483648,2147483648,2],"data_offsets":[0,8]}})",
       "impossible extent"},
      {R"({"a":{"dtype":"F32","shape":[1e300],"data_offsets":[0,8]}})",
       "a.shape[0]: expected an integer"},
      {R"({"a":{"dtype":"F32","shape":[2]}})", "a.data_offsets: missing"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", "expected two offsets"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":{"0":0,"1":8}}})",
       "a.data_offsets: expected an array"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}})",
       "is not in the 8 bytes of data"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})",
       "is not in the 8 bytes of data"},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})",
       "is not in the 8 bytes of data"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,9223372036854775807]}})",
       "is not in the 8 bytes"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,18446744073709551615]}})",
       "expected an integer"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})",
       "need 4 bytes, the offsets have 8"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       "8 bytes, the tensors end at 4"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "expected a tensor at byte 0"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "expected a tensor at byte 8, the next one is at 4"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
       R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "stands twice"},
      {R"({"__metadata__":{}})", "8 bytes, the tensors end at 0"},
  };
  for (const Case& c : cases) {
    INFO(c.header);
    const std::string message = refusal_of_file(make_file(c.header, "12345678"));
    REQUIRE(contains(message, "x.safetensors: "));
    REQUIRE(contains(message, c.found));
  }
}

TEST_CASE("The length of the header is checked before it is believed", "[safetensors]") {
  const std::string file = make_valid_file();
  const auto with_length = [&](uint64_t length) {
    std::string changed = file;
    std::memcpy(changed.data(), &length, sizeof length);
    return refusal_of_file(changed);
  };
  for (const uint64_t length : {uint64_t(file.size()) - 7, uint64_t{100'000'001}, uint64_t{1} << 63,
                                ~uint64_t{0}, ~uint64_t{0} - 7}) {
    REQUIRE(contains(with_length(length), fmt::format("a header of {} bytes", length)));
  }
  REQUIRE(!with_length(0).empty());
  for (size_t length = 0; length < file.size(); ++length) {
    if (refusal_of_file(file.substr(0, length)).empty()) FAIL("length " << length);
  }
}

TEST_CASE("Random damage is refused or harmless", "[safetensors]") {
  constexpr uint64_t kSeed = 5;
  base::Random random(kSeed);
  const std::string valid = make_valid_file();
  REQUIRE(parse_and_touch(valid));
  int64_t refused = 0;
  constexpr int64_t kTrials = 20'000;
  for (int64_t trial = 0; trial < kTrials; ++trial) {
    INFO("seed " << kSeed << ", trial " << trial);
    std::string changed = valid;
    for (uint64_t edits = 1 + random.below(4); edits > 0; --edits) {
      const size_t at = size_t(random.below(changed.size()));
      // Digits, signs and brackets are what reaches the checks behind the JSON parser.
      constexpr std::string_view kLikely = "0123456789-+.eE[]{}\",: ";
      const char replacement = random.below(2) == 0 ? char(random.below(256))
                                                    : kLikely[size_t(random.below(kLikely.size()))];
      switch (random.below(3)) {
        case 0:
          changed[at] = replacement;
          break;
        case 1:
          changed.erase(at, size_t(1 + random.below(4)));
          break;
        default:
          changed.insert(at, 1, replacement);
      }
      if (changed.empty()) break;
    }
    refused += !parse_and_touch(changed);
  }
  // Only changes inside the numbers, the names and the metadata are harmless.
  REQUIRE(refused > kTrials / 2);
  REQUIRE(refused < kTrials);
}

TEST_CASE("Random bytes are refused", "[safetensors]") {
  constexpr uint64_t kSeed = 6;
  base::Random random(kSeed);
  for (int trial = 0; trial < 5'000; ++trial) {
    std::string bytes(size_t(random.below(200)), '\0');
    for (char& byte : bytes) byte = char(random.below(256));
    // A length that fits lets the rest be looked at.
    if (bytes.size() >= 8 && random.below(2) == 0) {
      const uint64_t length = random.below(bytes.size());
      std::memcpy(bytes.data(), &length, sizeof length);
    }
    INFO("seed " << kSeed << ", trial " << trial);
    REQUIRE(!parse_and_touch(bytes));
  }
}
