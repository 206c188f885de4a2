// The text of the manifest: its exact bytes, every flipped bit, and wrong content under a right
// hash.
#include "checkpoint/manifest.h"

#include <string_view>

#include "sample.h"
#include "support/catch.h"

using namespace checkpoint_test;

namespace {

checkpoint::ManifestFile make_content() {
  checkpoint::Manifest manifest = make_sample(7).manifest;
  manifest.tokenizer.definition.clear();  // It has a file of its own.
  return {.manifest = manifest,
          .tokenizer_file = checkpoint::FileRecord{.bytes = 45, .sha256 = base::sha256({})},
          .files = {{"parameters.safetensors", {.bytes = 123, .sha256 = base::sha256({})}},
                    {"outer-0.safetensors", {.bytes = 0, .sha256 = {}}}}};
}

std::string refusal_of(const std::string& text) {
  return bad_input_of([&] { checkpoint::read_manifest(text, "folder/manifest.json"); });
}

// Gives a text the right hash: the last 64 characters before the closing quote, line, brace, line.
std::string sign(std::string text) {
  const size_t at = text.size() - 4 - 64;
  const auto hashed = std::as_bytes(std::span(text.data(), at));
  return text.replace(at, 64, base::sha256(hashed).hex());
}

std::string replace(std::string text, std::string_view part, std::string_view other) {
  const size_t at = text.find(part);
  REQUIRE(at != std::string::npos);
  return text.replace(at, part.size(), other);
}

}  // namespace

TEST_CASE("A manifest has exactly these bytes", "[checkpoint]") {
  const checkpoint::ManifestFile content = {
      .manifest = {.step = 1200,
                   .optimizer_updates = 1190,
                   .tokens_trained = 5'000'000'000,
                   .model_config = "{\"layers\": 4}",
                   .data_config = "{\"seed\": 42}",
                   .tokenizer = data::bytes_record(),
                   .shared_config = "{\"seed\":42}",
                   .changes =
                       {{.step = 600, .key = "training.steps", .before = "1000", .after = "2000"}},
                   .samples = 9600,
                   .samples_per_pass = 2500.5,
                   .samples_left = {{.first = 9500, .count = 40}},
                   .outer = {{.version = 12, .digest = base::sha256({})}},
                   .committed_step = 1180,
                   .tokens_since_commit = {4096},
                   .in_flight = {{.fragment = 0, .step = 1198, .tokens = 4000}},
                   .gradient_squares = {0.25, 3.5e-8},
                   .wall_time = "2026-01-31T12:00:00Z"},
      .files = {{"parameters.safetensors", {.bytes = 123, .sha256 = base::sha256({})}}}};
  const std::string zeros(64, '0');
  const std::string empty_hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
  const std::string expected = R"({
  "format": "atoll checkpoint",
  "format_version": 2,
  "step": 1200,
  "optimizer_updates": 1190,
  "tokens_trained": 5000000000,
  "model_config": "{\"layers\": 4}",
  "data_config": "{\"seed\": 42}",
  "tokenizer": "bytes",
  "begin_id": 256,
  "end_id": 257,
  "config": ")" + zeros + R"(",
  "shared_config": "{\"seed\":42}",
  "changes": [
    {
      "step": 600,
      "key": "training.steps",
      "before": "1000",
      "after": "2000"
    }
  ],
  "data": ")" + zeros + R"(",
  "samples": 9600,
  "samples_per_pass": 2500.5,
  "samples_left": [
    {
      "first": 9500,
      "count": 40
    }
  ],
  "outer": [
    {
      "version": 12,
      "digest": ")" + empty_hash +
                               R"("
    }
  ],
  "committed_step": 1180,
  "tokens_since_commit": [
    4096
  ],
  "in_flight": [
    {
      "fragment": 0,
      "step": 1198,
      "tokens": 4000
    }
  ],
  "gradient_squares": [
    0.25,
    3.5e-08
  ],
  "wall_time": "2026-01-31T12:00:00Z",
  "files": {
    "parameters.safetensors": {
      "bytes": 123,
      "sha256": ")" + empty_hash +
                               R"("
    }
  },
  "manifest_sha256": ")" + zeros +
                               "\"\n}\n";
  REQUIRE(checkpoint::write_manifest(content) == sign(expected));
}

TEST_CASE("A manifest reads back as it was", "[checkpoint]") {
  const auto content = make_content();
  REQUIRE(checkpoint::read_manifest(checkpoint::write_manifest(content), "x") == content);
  REQUIRE(checkpoint::read_manifest(checkpoint::write_manifest({}), "x") ==
          checkpoint::ManifestFile{});
}

TEST_CASE("A manifest of before there was data_config reads as one that does not know",
          "[checkpoint]") {
  auto content = make_content();
  content.manifest.data_config = "";
  const std::string text = checkpoint::write_manifest(content);
  REQUIRE(checkpoint::read_manifest(sign(replace(text, "  \"data_config\": \"\",\n", "")), "x") ==
          content);
}

TEST_CASE("A manifest of before there was shared_config reads as one that does not know",
          "[checkpoint]") {
  auto content = make_content();
  content.manifest.shared_config = "";
  content.manifest.changes = {};
  const std::string text = replace(checkpoint::write_manifest(content),
                                   "  \"shared_config\": \"\",\n  \"changes\": [],\n", "");
  REQUIRE(checkpoint::read_manifest(sign(text), "x") == content);
}

TEST_CASE("Every flipped bit and every cut of a manifest is found", "[checkpoint]") {
  std::string text = checkpoint::write_manifest(make_content());
  for (size_t bit = 0; bit < 8 * text.size(); ++bit) {
    const char mask = char(1 << (bit % 8));
    text[bit / 8] = char(text[bit / 8] ^ mask);
    if (!contains(refusal_of(text), "folder/manifest.json: ")) FAIL("bit " << bit);
    text[bit / 8] = char(text[bit / 8] ^ mask);
  }
  // Another space at the end is JSON as well, and it is behind the bytes that the hash covers.
  for (const size_t from_end : {size_t{1}, size_t{3}}) {
    std::string changed = text;
    changed[changed.size() - from_end] = ' ';
    REQUIRE(contains(refusal_of(changed), "the end is missing"));
  }
  for (size_t length = 0; length < text.size(); ++length) {
    if (!contains(refusal_of(text.substr(0, length)), "folder/manifest.json: "))
      FAIL("length " << length);
  }
}

TEST_CASE("Wrong content under a right hash is refused with the key", "[checkpoint]") {
  const std::string whole = checkpoint::write_manifest(make_content());
  REQUIRE(sign(whole) == whole);
  struct Change {
    const char* part;
    const char* other;
    const char* found;  // In the message.
  };
  const Change changes[] = {
      {"\"format_version\": 2", "\"format_version\": 1", "format_version: expected 2, found 1"},
      {"atoll checkpoint", "other checkpoint", "format"},
      {"\"step\": 7", "\"step\": -7", "step: expected a count, found -7"},
      {"\"step\": 7", "\"step\": \"7\"", "step: expected an integer"},
      {"\"step\": 7", "\"step\": 1e300", "step: expected an integer"},
      {"\"step\": 7", "\"steps\": 7", "step: missing"},
      {"\"step\": 7,", "\"step\": 7, \"step\": 7,", "stands twice"},
      {"\"tokenizer\": \"a.json\"", "\"tokenizer\": []", "tokenizer: expected a string"},
      {"\"begin_id\": 7", "\"begin_id\": 2147483648", "begin_id: 2147483648 is no token"},
      {"\"bytes\": 45", "\"bytes\": -45", "tokenizer_file.bytes: expected a count"},
      {"\"config\": \"", "\"config\": \"x", "config: a digest has 64"},
      {"\"version\": 7", "\"version\": -1", "outer[0].version: expected a count"},
      {"\"outer\": [", "\"outer\": {}, \"other\": [", "outer: expected an array"},
      {"\"tokens_since_commit\": [", "\"tokens_since_commit\": [-1, ",
       "tokens_since_commit[0]: expected a count"},
      {"\"gradient_squares\": [", "\"gradient_squares\": [null, ",
       "gradient_squares[0]: expected a number"},
      {"\"bytes\": 123", "\"bytes\": -123", "bytes: expected a count"},
      {"\"files\": {", "\"files\": [], \"other\": {", "files: expected an object"},
      {"\"parameters.safetensors\"", "\"../../parameters.safetensors\"",
       "is not a name for a file"},
      {"\"parameters.safetensors\"", "\"/etc/x.safetensors\"", "is not a name for a file"},
      {"\"parameters.safetensors\"", "\"manifest.json\"", "is not a name for a file"},
      {"\"parameters.safetensors\"", "\"a\\u0000.safetensors\"", "is not a name for a file"},
      {"{\n", "{{\n", "parse error"},
  };
  for (const Change& change : changes) {
    INFO(change.part << " -> " << change.other);
    const std::string message = refusal_of(sign(replace(whole, change.part, change.other)));
    REQUIRE(contains(message, "folder/manifest.json: "));
    REQUIRE(contains(message, change.found));
  }
}
