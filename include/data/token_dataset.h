// Token data on disk: the Megatron indexed dataset, as the ecosystem's tools write it.
//
//   PREFIX.bin   the tokens of all documents, one after another.
//   PREFIX.idx   "MMIDIDX\0\0", uint64 version 1, uint8 dtype (1 uint8, 3 int16, 4 int32, 8
//   uint16), uint64 sequence count S,
//                uint64 document index count, int32 lengths[S], int64 byte_offsets[S], int64
//                document_index[...]; little endian.
//   PREFIX.json  ours, optional: tokenizer name, vocabulary, token and document counts. Files of
//   others lack it.
//   PREFIX.tokenizer.json  the tokenizer's file, if it has one, so that the data need nothing else.
//
// Data of datatrove are read as well, as they are: NAME.ds (tokens), NAME.ds.index (where documents
// end) and NAME.ds.metadata (optional).
//
// A document is what one sequence holds (our writer writes one sequence per document).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/file.h"

namespace data {

inline constexpr const char* kTokenizerEnding = ".tokenizer.json";

// Memory-mapped and immutable; may be read from several threads. The files must not be changed
// meanwhile: put a new one in their place instead.
class TokenDataset {
 public:
  // `prefix` is PREFIX, or NAME or NAME.ds. Throws bad_input for a missing, truncated or
  // inconsistent file: every length and offset is checked against the file's size before anything
  // is used.
  static std::unique_ptr<TokenDataset> open(base::Storage& storage, const std::string& prefix);
  virtual ~TokenDataset() = default;

  virtual const std::string& prefix() const = 0;
  virtual int64_t document_count() const = 0;
  virtual int64_t token_count() const = 0;
  virtual int64_t document_length(int64_t document) const = 0;  // In tokens.
  // Copies tokens [begin, begin + out.size()) of a document.
  virtual void read(int64_t document, int64_t begin, std::span<int32_t> out) const = 0;
  virtual int64_t vocabulary() const = 0;          // From PREFIX.json; 0 if unknown.
  virtual std::string tokenizer_name() const = 0;  // From PREFIX.json; empty if unknown.
  // Of PREFIX.tokenizer.json, in hexadecimal, from PREFIX.json; empty if unknown.
  virtual std::string tokenizer_sha256() const { return {}; }
  // What stands around each document, from PREFIX.json; -1: nothing does. None if unknown.
  struct Ends {
    int32_t begin_id = -1;
    int32_t end_id = -1;
  };
  virtual std::optional<Ends> ends() const { return std::nullopt; }
};

// Writes a dataset; nothing is visible under its final name before finish(), and PREFIX.idx comes
// last. dtype uint16 while every id fits, else int32: chosen by `vocabulary`, outside of which ids
// are bad input.
class TokenDatasetWriter {
 public:
  struct Options {
    std::string prefix;
    int64_t vocabulary = 0;
    std::string tokenizer_name;
    std::string tokenizer_definition = {};  // The text of its file, kept beside; empty: none.
    int32_t begin_id = -1, end_id = -1;     // Around each document; -1: none, or unknown.
  };
  static std::unique_ptr<TokenDatasetWriter> create(base::Storage& storage, const Options& options);
  virtual ~TokenDatasetWriter() = default;
  virtual void add_document(std::span<const int32_t> tokens) = 0;
  virtual void finish() = 0;
};

}  // namespace data
