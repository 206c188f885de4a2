// manifest.json: what a checkpoint holds besides tensors, and the size and the hash of every file.
// Its last line is the SHA-256 of everything before, so that a flipped bit in the manifest is found
// as well.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.h"
#include "checkpoint/safetensors.h"

namespace checkpoint {

inline constexpr int64_t kFormatVersion = 2;
inline constexpr const char* kManifestName = "manifest.json";
inline constexpr const char* kTokenizerName = "tokenizer.json";

// The text of manifest.json. The tokenizer's definition is not in it: it is empty here.
struct ManifestFile {
  Manifest manifest;
  std::optional<FileRecord> tokenizer_file;  // Of tokenizer.json; none: the tokenizer needs none.
  std::map<std::string, FileRecord> files;   // By name.
  bool operator==(const ManifestFile&) const = default;
};

// Throws bad_input if the text would not read back as the same: a checkpoint that cannot be opened
// must not be written.
std::string write_manifest(const ManifestFile& content);

// Throws bad_input, which names `path`, for anything that is not exactly what write_manifest()
// made.
ManifestFile read_manifest(const std::string& text, const std::string& path);

// The content of a checkpoint is wrong: nothing that the disk can give later makes it right. The
// only reason to take an older one instead.
class Damaged : public base::Error {
 public:
  using Error::Error;
};
Damaged damaged(const std::string& path, const std::string& found);

// Letters, digits, points, dashes and underlines before ".safetensors": never a way out of the
// checkpoint's folder.
bool is_file_name(const std::string& name);

}  // namespace checkpoint
