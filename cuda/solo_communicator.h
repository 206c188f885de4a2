// The communicator of a node with one GPU: nothing has to move.
#pragma once

#include <mutex>
#include <optional>

#include "backend/communicator.h"
#include "cuda/check.h"
#include "cuda/cuda_backend.h"

namespace cuda {

class SoloCommunicator final : public backend::Communicator {
 public:
  int rank() const override { return 0; }
  int rank_count() const override { return 1; }
  void all_gather(const backend::Tensor& out, const backend::Tensor& in,
                  backend::Stream& stream) override {
    copy(out, in, stream);
  }
  void reduce_scatter(const backend::Tensor& out, const backend::Tensor& in,
                      backend::Stream& stream) override {
    copy(out, in, stream);
  }
  void all_reduce(const backend::Tensor&, backend::Stream&) override { check(); }
  void broadcast(const backend::Tensor&, int, backend::Stream&) override { check(); }
  void barrier() override { check(); }

  void abort(const std::string& reason) override {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = reason;
  }
  void check() override {
    const std::lock_guard lock(mutex_);
    if (failure_) throw base::resource_lost(*failure_, "Start the node again.");
  }

 private:
  void copy(const backend::Tensor& out, const backend::Tensor& in, backend::Stream& stream) {
    check();
    if (out.data == in.data) return;
    cuda::check(cudaMemcpyAsync(out.data, in.data, size_t(in.byte_count()), cudaMemcpyDefault,
                                handle_of(stream)),
                "copying");
  }

  std::mutex mutex_;
  std::optional<std::string> failure_;
};

}  // namespace cuda
