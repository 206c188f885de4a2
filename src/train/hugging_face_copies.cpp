#include "train/hugging_face_copies.h"

#include <algorithm>
#include <fmt/format.h>

#include "base/log.h"
#include "checkpoint/hugging_face.h"

namespace train {
namespace {

std::string name_of(int64_t step) {
  return fmt::format("step-{:08}", step);
}

// Only what has exactly such a name is ours to remove. Oldest first; more digits are later steps.
std::vector<std::string> copies_in(base::Storage& storage, const std::string& parent) {
  std::vector<std::string> names;
  for (const std::string& name : storage.list(parent)) {
    const bool is_digits = name.size() >= 13 && name.starts_with("step-") &&
                           name.find_first_not_of("0123456789", 5) == std::string::npos;
    if (is_digits) names.push_back(name);
  }
  std::ranges::sort(names, [](const std::string& a, const std::string& b) {
    return a.size() != b.size() ? a.size() < b.size() : a < b;
  });
  return names;
}

}  // namespace

void write_hugging_face_copy(base::Storage& storage, const RunConfig& config, int64_t step,
                             const data::TokenizerRecord& tokenizer,
                             const std::vector<checkpoint::TensorSource>& tensors) {
  const std::string parent = config.node.run_directory + "/hugging_face";
  const std::string folder = parent + "/" + name_of(step);
  if (storage.exists(folder)) return;
  storage.make_directories(parent);
  const auto report = checkpoint::write_hugging_face(
      storage,
      {.folder = folder,
       .numbers = checkpoint::parse_number_format(config.checkpoint.hugging_face_dtype)},
      config.model, tokenizer, tensors);
  base::log_info("step {}: wrote {} ({} bytes)", step, folder, report.bytes);
  const auto names = copies_in(storage, parent);
  for (size_t i = 0; i + size_t(config.checkpoint.keep) < names.size(); ++i)
    if (names[i] != name_of(step)) storage.remove_all(parent + "/" + names[i]);
}

}  // namespace train
