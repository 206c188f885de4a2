// Text files to a token dataset.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/file.h"
#include "data/tokenizer.h"

namespace data {

struct PrepareOptions {
  // Files, or folders that are walked in sorted order (links to folders are not followed). A file
  // is one document; of a
  // *.jsonl file each line is one, with its text in `jsonl_field`.
  std::vector<std::string> inputs;
  std::string output_prefix;
  std::string jsonl_field = "text";
  int64_t document_bytes_max = 64 * 1024 * 1024;  // Longer documents or lines are bad input.
  int64_t input_bytes_max = 0;  // Stop when there are so many bytes of text; 0: no limit.
};
struct PrepareReport {
  int64_t documents = 0;
  int64_t tokens = 0;
  int64_t bytes = 0;
  int64_t skipped_files = 0;  // Empty, or binary (a zero byte).
};
// `progress`, which may be empty, is called every few MiB and at the end with the bytes of text so
// far. Inputs without any text are bad input.
PrepareReport prepare(base::Storage& storage, const Tokenizer& tokenizer,
                      const PrepareOptions& options,
                      const std::function<void(int64_t bytes)>& progress);

}  // namespace data
