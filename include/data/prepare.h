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
  // Files, or folders that are walked in sorted order (links to folders are not followed). What a
  // file holds is told by the end of its name, in upper or lower case:
  //   .jsonl, .ndjson   each line is a JSON object with one document in `json_field`
  //   .json             such objects one after another, or an array of them or of texts
  //   anything else     text: one document, or several with `separator` between them
  // Each may be packed by gzip or zstd: its first bytes say so, and .gz or .zst behind the name is
  // no part of it.
  std::vector<std::string> inputs;
  std::string output_prefix;
  std::string json_field = "text";
  std::string separator;        // Empty: none. What is only white space between two is no document.
  bool json_is_text = false;    // JSON files are text like any other.
  bool skip_bad_lines = false;  // JSON without a text in it, and the rest of a packed file that is
                                // damaged, is left out instead of ending it all.
  // A longer text becomes several documents, cut behind a line's end where there is one; memory
  // stays below about ten times this for each thread. A longer line or object of JSON is a bad one.
  int64_t document_bytes_max = 64 * 1024 * 1024;
  int64_t input_bytes_max = 0;  // Stop when there are so many bytes of text; 0: no limit.
  int threads = 0;              // 0: all processors. The result is the same with any number.
};

// Something in the inputs that did not become documents.
struct LeftOut {
  std::string place;  // A path, or path:line.
  std::string reason;
};
struct PrepareReport {
  static constexpr int64_t kBadLinesNamed = 10;

  int64_t documents = 0;
  int64_t tokens = 0;
  int64_t bytes = 0;      // Of text.
  int64_t cut_texts = 0;  // Texts that became several documents.
  std::vector<LeftOut> files;
  int64_t bad_lines = 0;                 // Left out.
  std::vector<LeftOut> first_bad_lines;  // At most kBadLinesNamed.
};

struct PrepareProgress {
  int64_t text_bytes = 0;  // Become tokens so far.
  int64_t tokens = 0;
  int64_t input_bytes = 0;        // Of the files, packed as they are, so far ...
  int64_t input_bytes_total = 0;  // ... and in all.
};

// `progress`, which may be empty, is called every MiB of text or more, and at the end.
// `stop_requested`, which may be empty, is asked before each document: if it says yes,
// resource_lost is thrown, and an older dataset is as it was. Inputs without any text, and Parquet
// tables, are bad input.
PrepareReport prepare(base::Storage& storage, const Tokenizer& tokenizer,
                      const PrepareOptions& options,
                      const std::function<void(const PrepareProgress&)>& progress,
                      const std::function<bool()>& stop_requested = {});

}  // namespace data
