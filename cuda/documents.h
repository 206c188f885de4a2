// What cuDNN wants to know about packed documents, made on the device from document_start: the host
// knows only how many documents there are.
#pragma once

#include <array>
#include <cstdint>
#include <cuda_runtime_api.h>

namespace cuda {

// Documents as the entries of a batch: entry e is document e in the order of memory. Entries behind
// the last document are empty and begin at the end. All in device memory, each array at a 16-byte
// address.
struct DocumentTable {
  static constexpr int kTensors = 4;

  int32_t* begins = nullptr;                 // (entries + 1) The first token.
  int32_t* lengths = nullptr;                // (entries)
  std::array<int64_t*, kTensors> offsets{};  // (entries + 1) begins * a tensor's stride.

  static int64_t byte_count(int64_t entries);
  // REQUIRES: `memory` has byte_count(entries) bytes and is 16-byte aligned.
  static DocumentTable in(void* memory, int64_t entries);
};

struct DocumentTableArgs {
  const int32_t* document_start = nullptr;  // (token_count), see backend::AttentionForwardArgs.
  int64_t token_count = 0, sequence_length = 0;
  int64_t entries = 0;  // At least as many as documents.
  // For each of `offsets`: numbers from one token to the next.
  std::array<int64_t, DocumentTable::kTensors> strides{};
};
void make_document_table(const DocumentTable& table, const DocumentTableArgs& args,
                         cudaStream_t stream);

// A mask to be added to scores: mask[b][i][j] = 0 if j is in the document of position i of row b or
// behind it, else kMasked.
//   mask (rows, T, stride) bf16, 16-byte aligned, stride a multiple of 8; columns from T on are 0.
//   document_start (rows, T) int32.
// kMasked is far below all scores, but not so far that the rounding of a score beside it would
// matter where a kernel takes the difference of two masked ones. Exact in bf16.
inline constexpr float kMasked = -65536;
void make_document_mask(void* mask, const int32_t* document_start, int64_t rows, int64_t T,
                        int64_t stride, cudaStream_t stream);

// Two dense (token_count, columns) matrices of bf16, one after the other into `columns` columns
// each of a wider one with `stride` numbers per row. All 16-byte aligned, columns a multiple of 8.
void place_columns(void* target, int64_t stride, const void* left, const void* right,
                   int64_t token_count, int64_t columns, cudaStream_t stream);

}  // namespace cuda
