// The CUDA backend: bf16 storage, fp32 arithmetic. Files have the names of src/cpu/, which is the
// oracle that they are tested against: device, matmul, attention, norm, pointwise, vocab, update;
// codec is the int8 and int4 codecs.
//
// Every .cu file runs on a GPU and, in the tests, on a processor under tests/cuda/emulation.
// Kernels: 16-byte accesses, fp32 in registers, no atomics, sums in an order that depends on the
// shapes and the kind of device alone; each has its formula and the bytes that it moves in front of
// it.
#pragma once

#include <cuda_runtime_api.h>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "cuda/attention.h"
#include "cuda/device.h"
#include "cuda/matmul.h"
#include "cuda/scratch.h"

namespace cuda {

class CudaOps final : public backend::Ops {
 public:
  // Arguments outlive the object. `scratch` is used on the compute stream only. `multiprocessors`:
  // what products spread over; 0: all.
  CudaOps(const DeviceProperties& properties, const backend::CudaOptions& options,
          int multiprocessors, Scratch& scratch);

  // matmul.cpp
  void matmul(const backend::MatmulArgs& args, backend::Stream& stream) override {
    matmul_->run(args, handle_of(stream));
  }
  // attention.cu, attention_cudnn.cpp
  void attention_forward(const backend::AttentionForwardArgs& args,
                         backend::Stream& stream) override {
    attention_->forward(args, handle_of(stream));
  }
  void attention_backward(const backend::AttentionBackwardArgs& args,
                          backend::Stream& stream) override {
    attention_->backward(args, handle_of(stream));
  }
  // cache.cu
  void cache_append(const backend::CacheAppendArgs& args, backend::Stream& stream) override;
  void cache_attention(const backend::CacheAttentionArgs& args, backend::Stream& stream) override;
  // norm.cu
  void rmsnorm_forward(const backend::RmsnormForwardArgs& args, backend::Stream& stream) override;
  void rmsnorm_backward(const backend::RmsnormBackwardArgs& args, backend::Stream& stream) override;
  // pointwise.cu
  void rope(const backend::RopeArgs& args, backend::Stream& stream) override;
  void add(const backend::AddArgs& args, backend::Stream& stream) override;
  void sum_tensors(const backend::SumTensorsArgs& args, backend::Stream& stream) override;
  void cast(const backend::CastArgs& args, backend::Stream& stream) override;
  void zero(const backend::Tensor& out, backend::Stream& stream) override;
  // swiglu.cu, which is apart for its flags
  void swiglu_forward(const backend::SwigluForwardArgs& args, backend::Stream& stream) override;
  void swiglu_backward(const backend::SwigluBackwardArgs& args, backend::Stream& stream) override;
  // vocab.cu
  void embedding_forward(const backend::EmbeddingForwardArgs& args,
                         backend::Stream& stream) override;
  void embedding_backward(const backend::EmbeddingBackwardArgs& args,
                          backend::Stream& stream) override;
  void cross_entropy(const backend::CrossEntropyArgs& args, backend::Stream& stream) override;
  // update.cu
  void sum(const backend::SumArgs& args, backend::Stream& stream) override;
  void sum_of_squares(const backend::SumOfSquaresArgs& args, backend::Stream& stream) override;
  void clip_scale(const backend::ClipScaleArgs& args, backend::Stream& stream) override;
  void adamw(const backend::AdamwArgs& args, backend::Stream& stream) override;
  void sgd(const backend::SgdArgs& args, backend::Stream& stream) override;
  // codec.cu
  void encode_int8(const backend::EncodeInt8Args& args, backend::Stream& stream) override;
  void decode_int8(const backend::DecodeInt8Args& args, backend::Stream& stream) override;
  void encode_int4(const backend::EncodeInt4Args& args, backend::Stream& stream) override;
  void decode_int4(const backend::DecodeInt4Args& args, backend::Stream& stream) override;

 private:
  const DeviceProperties properties_;
  Scratch& scratch_;
  Scratch sums_;  // Of its own: sums may run beside the compute stream, on one stream at a time.
  std::unique_ptr<Matmul> matmul_;
  std::unique_ptr<Attention> attention_;
};

}  // namespace cuda
