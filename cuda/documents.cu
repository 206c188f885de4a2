// Tables and masks of packed documents.
#include "base/math.h"
#include "cuda/documents.h"
#include "cuda/launch.h"
#include "cuda/reduce.h"
#include "cuda/vector.h"

namespace cuda {
namespace {

constexpr int kTableThreads = 1024;
constexpr int kTableWarps = kTableThreads / kWarp;

// The sum of the values of all threads before this one; `slots` is shared memory for one number per
// warp.
__device__ int sum_before(int value, int* slots) {
  const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
  int sum = value;
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const int left = __shfl_up_sync(kAllLanes, sum, unsigned(offset));
    if (lane >= offset) sum += left;
  }
  if (lane == kWarp - 1) slots[warp] = sum;
  __syncthreads();
  for (int w = 0; w < warp; ++w) sum += slots[w];
  return sum - value;
}

// Calls body(token) for the tokens of `first` to `end` at which a document begins.
template <class Body>
__device__ void for_begins(const DocumentTableArgs& args, int first, int end, const Body& body) {
  int position = first % int(args.sequence_length);
  for (int token = first; token < end; ++token, ++position) {
    if (position == args.sequence_length) position = 0;
    if (args.document_start[token] == position) body(token);
  }
}

// One block. Each thread takes a run of tokens, counts the documents that begin there and, knowing
// how many begin before, writes them down; then the threads share the entries out. Reads 4 bytes
// per token, twice; writes 8 + 8 * 4 bytes per entry. Some microseconds for 8192 tokens.
__global__ __launch_bounds__(kTableThreads) void table_kernel(DocumentTable table,
                                                              DocumentTableArgs args) {
  int* const slots = shared_memory<int>();  // (kTableWarps + 1), the last one for the total.
  const int run = (int(args.token_count) + kTableThreads - 1) / kTableThreads;
  const int first = min(int(threadIdx.x) * run, int(args.token_count));
  const int end = min(first + run, int(args.token_count));
  int count = 0;
  for_begins(args, first, end, [&](int) { ++count; });
  int entry = sum_before(count, slots);
  if (threadIdx.x == kTableThreads - 1) slots[kTableWarps] = entry + count;
  for_begins(args, first, end, [&](int token) {
    if (entry < args.entries) table.begins[entry] = token;
    ++entry;
  });
  __syncthreads();
  const int documents = min(slots[kTableWarps], int(args.entries));
  for (int e = int(threadIdx.x); e <= args.entries; e += kTableThreads) {
    const int begin = e < documents ? table.begins[e] : int(args.token_count);
    const int next = e + 1 < documents ? table.begins[e + 1] : int(args.token_count);
    if (e < args.entries) table.lengths[e] = next - begin;
    for (int i = 0; i < DocumentTable::kTensors; ++i) table.offsets[i][e] = begin * args.strides[i];
  }
}

constexpr int kRowThreads = 128;

// A block for each row of the mask, a thread for each 8 numbers. Writes 2 bytes per number.
__global__ void mask_kernel(Bf16* mask, const int32_t* document_start, int stride) {
  const int begin = document_start[blockIdx.x];
  Bf16* const row = mask + int64_t(blockIdx.x) * stride;
  for (int j = int(threadIdx.x) * kPack; j < stride; j += kRowThreads * kPack) {
    Float8 values;
    for (int i = 0; i < kPack; ++i) values.at[i] = j + i < begin ? kMasked : 0.0f;
    store8(row + j, values);
  }
}

// A block for each row. Reads and writes 2 bytes per number.
__global__ void place_kernel(Bf16* target, int64_t stride, const Bf16* left, const Bf16* right,
                             int columns) {
  const int64_t row = blockIdx.x;
  for (int j = int(threadIdx.x) * kPack; j < 2 * columns; j += kRowThreads * kPack) {
    const Bf16* source =
        j < columns ? left + row * columns + j : right + row * columns + j - columns;
    *reinterpret_cast<uint4*>(target + row * stride + j) = *reinterpret_cast<const uint4*>(source);
  }
}

// Of entries + 1 numbers, rounded up so that the next array is aligned as well: cudnn-frontend
// tells cuDNN that every tensor begins at a 16-byte address, and a kernel may read 16 bytes at a
// time.
int64_t array_bytes(int64_t entries, size_t number_bytes) {
  return base::round_up((entries + 1) * int64_t(number_bytes), 16);
}

}  // namespace

int64_t DocumentTable::byte_count(int64_t entries) {
  return kTensors * array_bytes(entries, sizeof(int64_t)) +
         2 * array_bytes(entries, sizeof(int32_t));
}

DocumentTable DocumentTable::in(void* memory, int64_t entries) {
  DocumentTable table;
  auto* next = static_cast<char*>(memory);
  for (int64_t*& offsets : table.offsets) {
    offsets = reinterpret_cast<int64_t*>(next);
    next += array_bytes(entries, sizeof(int64_t));
  }
  table.begins = reinterpret_cast<int32_t*>(next);
  table.lengths = reinterpret_cast<int32_t*>(next + array_bytes(entries, sizeof(int32_t)));
  return table;
}

void make_document_table(const DocumentTable& table, const DocumentTableArgs& args,
                         cudaStream_t stream) {
  CHECK(args.token_count < (int64_t{1} << 30) && args.entries < (int64_t{1} << 30));
  launch(table_kernel,
         {.blocks = 1, .threads = kTableThreads, .shared_bytes = (kTableWarps + 1) * sizeof(int)},
         stream, table, args);
}

void make_document_mask(void* mask, const int32_t* document_start, int64_t rows, int64_t T,
                        int64_t stride, cudaStream_t stream) {
  CHECK(stride >= T && stride % kPack == 0 && is_aligned16(mask));
  launch(mask_kernel, {.blocks = unsigned(rows * T), .threads = kRowThreads}, stream,
         static_cast<Bf16*>(mask), document_start, int(stride));
}

void place_columns(void* target, int64_t stride, const void* left, const void* right,
                   int64_t token_count, int64_t columns, cudaStream_t stream) {
  CHECK(columns % kPack == 0 && stride % kPack == 0);
  CHECK(is_aligned16(target) && is_aligned16(left) && is_aligned16(right));
  launch(place_kernel, {.blocks = unsigned(token_count), .threads = kRowThreads}, stream,
         static_cast<Bf16*>(target), stride, static_cast<const Bf16*>(left),
         static_cast<const Bf16*>(right), int(columns));
}

}  // namespace cuda
