// The CPU backend: fp32, OpenBLAS for products, plain loops for the rest. It is what runs where
// there is no GPU, and the oracle that the CUDA kernels are tested against; cuda/ has the same file
// names.
//
// One idea: every operation is cut into pieces whose borders depend on its shape alone (products:
// also on the thread count), and sums over pieces are made in the order of the pieces. So the same
// inputs give the same bits in every run, whoever computed which piece.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "backend/device.h"
#include "backend/ops.h"
#include "base/math.h"
#include "base/thread.h"

namespace cpu {

// The threads of one rank, and scratch memory for each of them.
class Workers {
 public:
  explicit Workers(int thread_count);

  int thread_count() const { return pool_.thread_count(); }

  // Calls body(begin, end, worker) for [0, count) in pieces of `piece`; which worker gets which
  // piece is not fixed. Work of one piece does not leave the calling thread.
  template <class Body>
  void for_pieces(int64_t count, int64_t piece, const Body& body) {
    const int64_t piece_count = base::div_ceil(count, piece);
    auto item = [&](int64_t index, int worker) {
      body(index * piece, std::min(count, (index + 1) * piece), worker);
    };
    if (piece_count == 1) return item(0, 0);
    // A reference fits into std::function without allocating.
    pool_.parallel_items(piece_count, std::cref(item));
  }

  // The same for bodies that pay per piece: two pieces per thread, so that a thread that another
  // program holds up costs half as much, but none smaller than `piece_min`; borders are multiples
  // of `multiple`.
  template <class Body>
  void for_threads(int64_t count, int64_t piece_min, int64_t multiple, const Body& body) {
    const int64_t piece_count = thread_count() == 1 ? 1 : 2 * thread_count();
    const int64_t even = base::div_ceil(count, piece_count);
    for_pieces(count, base::round_up(std::max(even, piece_min), multiple), body);
  }

  // `count` floats of undefined content, 64-byte aligned, valid until the next call for the same
  // worker. Only that worker calls it (the caller of for_pieces is worker 0 outside of it). Grows
  // at the first need and is then kept, so that a steady state allocates nothing.
  float* scratch(int worker, int64_t count);
  // The same for what all workers of an operation share; called outside of for_pieces.
  float* shared_scratch(int64_t count);

 private:
  struct Free {
    void operator()(float* memory) const;
  };
  struct Scratch {
    std::unique_ptr<float, Free> memory;
    int64_t count = 0;
    float* at_least(int64_t count_needed);
  };
  base::ThreadPool pool_;
  std::vector<Scratch> scratch_;  // One per worker, then the shared one.
};

// Rows per piece of an operation on rows of `row_elements`: enough work (some 10 microseconds) to
// be worth handing over.
inline int64_t rows_per_piece(int64_t row_elements) {
  constexpr int64_t kPieceElements = 16384;
  return std::max<int64_t>(1, kPieceElements / row_elements);
}

class CpuOps final : public backend::Ops {
 public:
  explicit CpuOps(int thread_count) : workers_(thread_count) {}

  // matmul.cpp
  void matmul(const backend::MatmulArgs& args, backend::Stream& stream) override;
  // attention.cpp
  void attention_forward(const backend::AttentionForwardArgs& args,
                         backend::Stream& stream) override;
  void attention_backward(const backend::AttentionBackwardArgs& args,
                          backend::Stream& stream) override;
  // cache.cpp
  void cache_append(const backend::CacheAppendArgs& args, backend::Stream& stream) override;
  void cache_attention(const backend::CacheAttentionArgs& args, backend::Stream& stream) override;
  // norm.cpp
  void rmsnorm_forward(const backend::RmsnormForwardArgs& args, backend::Stream& stream) override;
  void rmsnorm_backward(const backend::RmsnormBackwardArgs& args, backend::Stream& stream) override;
  // pointwise.cpp
  void rope(const backend::RopeArgs& args, backend::Stream& stream) override;
  void swiglu_forward(const backend::SwigluForwardArgs& args, backend::Stream& stream) override;
  void swiglu_backward(const backend::SwigluBackwardArgs& args, backend::Stream& stream) override;
  void add(const backend::AddArgs& args, backend::Stream& stream) override;
  void sum_tensors(const backend::SumTensorsArgs& args, backend::Stream& stream) override;
  void cast(const backend::CastArgs& args, backend::Stream& stream) override;
  void zero(const backend::Tensor& out, backend::Stream& stream) override;
  // vocab.cpp
  void embedding_forward(const backend::EmbeddingForwardArgs& args,
                         backend::Stream& stream) override;
  void embedding_backward(const backend::EmbeddingBackwardArgs& args,
                          backend::Stream& stream) override;
  void cross_entropy(const backend::CrossEntropyArgs& args, backend::Stream& stream) override;
  // update.cpp
  void sum(const backend::SumArgs& args, backend::Stream& stream) override;
  void sum_of_squares(const backend::SumOfSquaresArgs& args, backend::Stream& stream) override;
  void clip_scale(const backend::ClipScaleArgs& args, backend::Stream& stream) override;
  void adamw(const backend::AdamwArgs& args, backend::Stream& stream) override;
  void sgd(const backend::SgdArgs& args, backend::Stream& stream) override;
  // codec.cpp
  void encode_int8(const backend::EncodeInt8Args& args, backend::Stream& stream) override;
  void decode_int8(const backend::DecodeInt8Args& args, backend::Stream& stream) override;
  void encode_int4(const backend::EncodeInt4Args& args, backend::Stream& stream) override;
  void decode_int4(const backend::DecodeInt4Args& args, backend::Stream& stream) override;

 private:
  Workers workers_;
};

}  // namespace cpu
