// A node of several ranks, each with a thread, for tests of collectives.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"

namespace cuda_test {

struct NodeOptions {
  int ranks = 1;
  std::string communicator = "auto";
  std::chrono::milliseconds timeout{60'000};  // Nothing is expected to wait as long.
};

class Node {
 public:
  explicit Node(const NodeOptions& options)
      : backends_(backend::make_cuda_backends({.ranks = options.ranks,
                                               .communicator = options.communicator,
                                               .collective_timeout = options.timeout,
                                               .attention = "plain",
                                               .tune_products = false})) {}

  int rank_count() const { return int(backends_.size()); }
  backend::Backend& rank(int r) { return backends_[size_t(r)]; }
  backend::Communicator& communicator(int r) { return *rank(r).communicator; }

  // Calls body(rank) on a thread per rank; `meanwhile` on this one. What each threw, which must be
  // resource_lost; empty: nothing.
  std::vector<std::string> run(
      const std::function<void(backend::Backend& rank)>& body,
      const std::function<void()>& meanwhile = [] {}) {
    std::vector<std::string> errors(backends_.size());
    std::vector<std::thread> threads;
    for (size_t r = 0; r < backends_.size(); ++r) {
      threads.emplace_back([&, r] {
        try {
          backends_[r].device->enter_thread();
          body(backends_[r]);
        } catch (const base::Error& error) {
          const bool is_lost = error.code() == base::ExitCode::kResourceLost;
          errors[r] = (is_lost ? "" : "not resource_lost: ") + std::string(error.what());
        }
      });
    }
    meanwhile();
    for (std::thread& thread : threads) thread.join();
    return errors;
  }

 private:
  std::vector<backend::Backend> backends_;
};

// fp32 in a rank's device memory.
class DeviceArray {
 public:
  DeviceArray(backend::Backend& rank, const std::vector<float>& values)
      : rank_(rank),
        count_(int64_t(values.size())),
        buffer_(rank.device->allocate(4 * count_, "")) {
    backend::Stream& stream = rank.device->copy_stream();
    rank_.device->copy(buffer_->data(), values.data(), 4 * count_, stream);
    rank_.device->synchronize(stream);
  }
  backend::Tensor tensor() const { return buffer_->tensor(backend::DType::kFloat32, {count_}); }
  std::vector<float> download(backend::Stream& stream) const {
    std::vector<float> values(static_cast<size_t>(count_));
    rank_.device->copy(values.data(), buffer_->data(), 4 * count_, stream);
    rank_.device->synchronize(stream);
    return values;
  }

 private:
  backend::Backend& rank_;
  const int64_t count_;
  const std::unique_ptr<backend::Buffer> buffer_;
};

// Every collective, of several sizes, against plain sums.
void require_right_collectives(const std::string& communicator, int ranks);

}  // namespace cuda_test
