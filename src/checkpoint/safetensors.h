// The safetensors format (https://github.com/huggingface/safetensors): named tensors in one file
// that no reader has to execute. Eight bytes of length, that many bytes of JSON, then the numbers:
//
//   length   u64, little-endian: of the header, padding included
//   header   {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}, padding
//   data     the tensors one after the other, without holes; data_offsets count from its start
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/hash.h"
#include "checkpoint/checkpoint.h"

namespace checkpoint {

struct FileRecord {
  int64_t bytes = 0;
  base::Digest sha256;
  bool operator==(const FileRecord&) const = default;
};

// Writes the whole file, but does not commit it. Memory: a few megabytes, whatever the tensors'
// size. REQUIRES: no name stands twice, and none is "__metadata__".
FileRecord write_safetensors(base::OutputFile& file, const FileSource& source);

struct SafetensorsView {
  std::string dtype;  // As in the file: "F32", "BF16", ...
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // Borrows from the file.
};

// Finds the tensors of a file. A pure function: any bytes are either exactly a safetensors file or
// throw bad_input, which names `path`.
std::map<std::string, SafetensorsView> parse_safetensors(std::span<const std::byte> file,
                                                         const std::string& path);

}  // namespace checkpoint
