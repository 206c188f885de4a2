// The safetensors files of a folder, and the index that says which tensor is in which.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/file.h"
#include "checkpoint/safetensors.h"

namespace checkpoint {

inline constexpr const char* kIndexName = "model.safetensors.index.json";

// Cuts the tensors, in their order, into files of at most so many bytes of tensors; a tensor that
// is larger has a file to itself. One file is called model.safetensors, of more each has its
// number.
std::vector<FileSource> cut_into_shards(const std::vector<TensorSource>& tensors,
                                        NumberFormat numbers, int64_t shard_bytes_max);
std::string write_index(const std::vector<FileSource>& shards);

// All files of a folder, mapped, and the tensors in them by name. Throws bad_input that names the
// file for a shard that is missing or damaged, a tensor that the index names and that is not there,
// and a folder with weights of another kind.
struct MappedShards {
  std::vector<std::unique_ptr<base::MappedFile>> files;
  std::map<std::string, SafetensorsView> tensors;
};
MappedShards map_shards(base::Storage& storage, const std::string& folder);

}  // namespace checkpoint
