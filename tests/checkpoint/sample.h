// A node's state made up from a seed, with every awkward bit pattern a float can have, and the
// comparison of what was read back with what was written.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "checkpoint/checkpoint.h"

namespace checkpoint_test {

struct SampleTensor {
  backend::Shape shape;
  std::vector<float> elements;
};

struct Sample {
  checkpoint::Manifest manifest;
  std::map<std::string, std::map<std::string, SampleTensor>> files;

  // Borrows from this.
  std::vector<checkpoint::FileSource> sources() const {
    std::vector<checkpoint::FileSource> sources;
    for (const auto& [file, tensors] : files) {
      checkpoint::FileSource source = {.name = file};
      for (const auto& [name, tensor] : tensors) {
        const auto read = [&elements = tensor.elements](int64_t first, std::span<float> target) {
          std::memcpy(target.data(), elements.data() + first, target.size_bytes());
        };
        source.tensors.push_back({.name = name, .shape = tensor.shape, .read = read});
      }
      sources.push_back(std::move(source));
    }
    return sources;
  }
};

inline SampleTensor make_tensor(const backend::Shape& shape, base::Random& random) {
  // Zeros of both signs, a denormal, infinities, a quiet and a signalling NaN with payloads.
  constexpr uint32_t kAwkward[] = {0x00000000, 0x80000000, 0x00000001, 0x7f800000,
                                   0xff800000, 0x7fc12345, 0xffa54321};
  SampleTensor tensor = {.shape = shape, .elements = {}};
  tensor.elements.resize(size_t(shape.element_count()));
  for (float& element : tensor.elements) {
    const bool is_awkward = random.below(4) == 0;
    element = std::bit_cast<float>(is_awkward ? kAwkward[random.below(std::size(kAwkward))]
                                              : uint32_t(random.next_u64()));
  }
  return tensor;
}

inline base::Digest make_digest(base::Random& random) {
  base::Digest digest;
  for (uint8_t& byte : digest.bytes) byte = uint8_t(random.below(256));
  return digest;
}

inline constexpr const char* kTokenizer = "{\"model\": {\"type\": \"BPE\", \"vocab\": {}}}\n";

inline Sample make_sample(int64_t step, uint64_t seed = 1) {
  base::Random random(seed, uint64_t(step));
  Sample sample;
  sample.manifest = {
      .step = step,
      .optimizer_updates = step + 3,
      .tokens_trained = int64_t(random.below(uint64_t{1} << 62)),
      .model_config = "{\"layers\": 2,\n \"name\": \"\\u00fc \\\"quoted\\\" \xc3\xa9\"}",
      .data_config = "{\"seed\": 7}",
      .tokenizer = {.name = "a.json", .definition = kTokenizer, .begin_id = 7, .end_id = 0},
      .config = make_digest(random),
      .shared_config = "{\"seed\": 42}",
      .changes = {{.step = 3, .key = "training.steps", .before = "4", .after = "8"}},
      .data = make_digest(random),
      .samples = int64_t(random.below(uint64_t{1} << 48)),
      .samples_per_pass = double(random.below(1u << 30)) / 7,
      .samples_left = {{.first = 30, .count = 5}, {.first = int64_t{1} << 47, .count = 1}},
      .outer = {{.version = 7, .digest = make_digest(random)},
                {.version = uint64_t{1} << 62, .digest = make_digest(random)}},
      .tokens_since_commit = {0, int64_t(random.below(uint64_t{1} << 62))},
      .gradient_squares = {double(random.below(1u << 30)) / 3},
      .wall_time = "2026-01-31T12:00:00Z"};
  auto& parameters = sample.files["parameters.safetensors"];
  parameters["blocks.0.qkv"] = make_tensor({3, 5}, random);
  parameters["blocks.0.norm1"] = make_tensor({5}, random);
  parameters["a name with \"quotes\", \\ and \xc3\xa9"] = make_tensor({2, 1, 2, 3}, random);
  sample.files["outer-0.safetensors"]["outer.momentum"] = make_tensor({33}, random);
  sample.files["outer-0.safetensors"]["scalar"] = make_tensor({}, random);
  sample.files["outer-0.safetensors"]["nothing"] = make_tensor({0, 4}, random);
  sample.files["empty.safetensors"] = {};
  return sample;
}

// Bit for bit, names and shapes included.
inline bool equals(const checkpoint::Reader& reader, const Sample& sample) {
  if (reader.manifest() != sample.manifest) return false;
  for (const auto& [file, tensors] : sample.files) {
    if (!reader.has_file(file)) return false;
    const auto names = reader.tensor_names(file);
    if (names.size() != tensors.size()) return false;
    for (const auto& [name, tensor] : tensors) {
      if (std::find(names.begin(), names.end(), name) == names.end()) return false;
      std::vector<float> found(tensor.elements.size(), 0.5f);
      reader.read(file, name, tensor.shape, 0, found);
      if (!found.empty() &&
          std::memcmp(found.data(), tensor.elements.data(), found.size() * sizeof(float)) != 0) {
        return false;
      }
    }
  }
  return true;
}

inline checkpoint::SaveReport save(base::Storage& storage, const std::string& run,
                                   const Sample& sample, int64_t keep = 3) {
  return checkpoint::save(storage, {.run_directory = run, .keep = keep}, sample.manifest,
                          sample.sources());
}

// The message of the bad_input that `action` throws; empty if it throws nothing.
template <class Action>
std::string bad_input_of(Action&& action) {
  try {
    action();
  } catch (const base::Error& error) {
    return error.code() == base::ExitCode::kBadInput ? error.what() : std::string();
  }
  return {};
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace checkpoint_test
