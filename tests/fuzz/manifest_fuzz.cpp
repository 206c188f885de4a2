// Fuzz target for what reads the files of a checkpoint: the manifest and safetensors. What must
// hold, besides that nothing crashes: a manifest that is taken for one can be written, and read
// again as the same; tensors lie within the file.
//
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude -Isrc -Itests
//     tests/fuzz/manifest_fuzz.cpp src/checkpoint/{manifest,safetensors}.cpp
//     src/base/{error,file,hash,json,log,thread}.cpp -lfmt -lspdlog -lcrypto -lnuma -o
//     manifest_fuzz
//   ./manifest_fuzz
//
// The first byte of an input selects: 0 a manifest, 1 one whose digest is made right (else hardly
// any input would get past it), 2 a safetensors file.
#include <cstring>
#include <string>

#include "base/error.h"
#include "checkpoint/manifest.h"
#include "checkpoint/safetensors.h"
#include "fuzz/target.h"

namespace checkpoint {
namespace {

constexpr size_t kDigestCharacters = 64;
constexpr size_t kEndCharacters = 4;  // The closing quote, line, brace, line.

void sign(std::string& text) {
  if (text.size() < kDigestCharacters + kEndCharacters) return;
  const size_t at = text.size() - kEndCharacters - kDigestCharacters;
  const auto hashed = std::as_bytes(std::span(text.data(), at));
  text.replace(at, kDigestCharacters, base::sha256(hashed).hex());
}

void check_manifest(const std::string& text) {
  ManifestFile content;
  try {
    content = read_manifest(text, "manifest.json");
  } catch (const base::Error&) {
    return;
  }
  const std::string again = write_manifest(content);
  CHECK(read_manifest(again, "manifest.json") == content, "{}\nbecomes\n{}", text, again);
}

void check_safetensors(std::span<const std::byte> file) {
  try {
    for (const auto& [name, tensor] : parse_safetensors(file, "file")) {
      const auto* const begin = tensor.bytes.data();
      CHECK(tensor.bytes.empty() ||
            (begin >= file.data() && begin + tensor.bytes.size() <= file.data() + file.size()));
    }
  } catch (const base::Error&) {
    return;
  }
}

ManifestFile sample_manifest() {
  return {.manifest = {.step = 1200,
                       .optimizer_updates = 1190,
                       .tokens_trained = 5'000'000'000,
                       .model_config = "{\"layers\": 4}",
                       .data_config = "{\"seed\": 42}",
                       .tokenizer = data::bytes_record(),
                       .shared_config = "{\"seed\":42}",
                       .changes = {{.step = 600, .key = "a.b", .before = "1", .after = "\"c\""}},
                       .samples = 9600,
                       .samples_per_pass = 2500.5,
                       .samples_left = {{.first = 9500, .count = 40}},
                       .outer = {{.version = 12, .digest = base::sha256({})}},
                       .committed_step = 1180,
                       .tokens_since_commit = {4096},
                       .in_flight = {{.fragment = 0, .step = 1198, .tokens = 4000},
                                     {.step = 1199, .merge_from = 1200, .is_short = true}},
                       .gradient_squares = {0.25, 3.5e-8},
                       .wall_time = "2026-01-31T12:00:00Z"},
          .files = {{"parameters.safetensors", {.bytes = 123, .sha256 = base::sha256({})}}}};
}

FuzzInput bytes_of(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

FuzzInput sample_safetensors() {
  std::string header = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                       R"("b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string file(8, '\0');
  file[0] = char(header.size());
  return bytes_of(file + header + std::string(11, 'x'));
}

}  // namespace
}  // namespace checkpoint

std::vector<FuzzInput> valid_fuzz_inputs() {
  const FuzzInput manifest =
      checkpoint::bytes_of(checkpoint::write_manifest(checkpoint::sample_manifest()));
  return {with_selector(0, manifest), with_selector(1, manifest),
          with_selector(2, checkpoint::sample_safetensors())};
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t byte_count) {
  if (byte_count == 0) return 0;
  std::string text(reinterpret_cast<const char*>(data) + 1, byte_count - 1);
  if (data[0] == 1) checkpoint::sign(text);
  if (data[0] <= 1) checkpoint::check_manifest(text);
  if (data[0] == 2) checkpoint::check_safetensors(std::as_bytes(std::span(text)));
  return 0;
}
