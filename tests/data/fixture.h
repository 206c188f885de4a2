// What the tests of this floor share: files, expected errors, datasets in memory, and rows with
// memory of their own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "data/sampler.h"
#include "data/token_dataset.h"
#include "support/temporary_folder.h"

namespace data_test {

inline void write_file(const std::string& path, const std::string& content) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << content;
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The error that `body` throws; one with code kDone if it throws none.
template <class Body>
base::Error error_of(Body&& body) {
  try {
    body();
  } catch (const base::Error& error) {
    return error;
  }
  return base::Error(base::ExitCode::kDone, "no error");
}

template <class Body>
bool is_bad_input(Body&& body) {
  return error_of(body).code() == base::ExitCode::kBadInput;
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class MemoryDataset : public data::TokenDataset {
 public:
  using Documents = std::vector<std::vector<int32_t>>;
  explicit MemoryDataset(Documents documents, int64_t vocabulary = 0, std::string prefix = "memory")
      : documents_(std::move(documents)), vocabulary_(vocabulary), prefix_(std::move(prefix)) {}

  const std::string& prefix() const override { return prefix_; }
  int64_t document_count() const override { return int64_t(documents_.size()); }
  int64_t token_count() const override {
    int64_t count = 0;
    for (const auto& document : documents_) count += int64_t(document.size());
    return count;
  }
  int64_t document_length(int64_t document) const override {
    return int64_t(documents_.at(size_t(document)).size());
  }
  void read(int64_t document, int64_t begin, std::span<int32_t> out) const override {
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = documents_.at(size_t(document)).at(size_t(begin) + i);
  }
  int64_t vocabulary() const override { return vocabulary_; }
  std::string tokenizer_name() const override { return "memory"; }
  // As somebody does who overwrites a file that is in use.
  void spoil(int64_t document, int64_t position, int32_t id) {
    documents_.at(size_t(document)).at(size_t(position)) = id;
  }

 private:
  Documents documents_;
  int64_t vocabulary_;
  std::string prefix_;
};

// One row with its memory.
struct OwnedRow {
  explicit OwnedRow(int64_t length)
      : tokens(size_t(length), -7),
        targets(size_t(length), -7),
        document_starts(size_t(length), -7) {}
  data::Row view() {
    return {.tokens = tokens, .targets = targets, .document_starts = document_starts};
  }
  bool operator==(const OwnedRow&) const = default;
  std::vector<int32_t> tokens, targets, document_starts;
};

inline OwnedRow training_row(const data::Sampler& sampler, int64_t sample) {
  OwnedRow result(sampler.sequence_length());
  sampler.training_row(sample, result.view());
  return result;
}

inline OwnedRow validation_row(const data::Sampler& sampler, int64_t row) {
  OwnedRow result(sampler.sequence_length());
  sampler.validation_row(row, result.view());
  return result;
}

}  // namespace data_test
