// One rank's view of an NcclNode.
#include "cuda/nccl_communicator.h"

#include <fmt/format.h>
#include <functional>

#include "cuda/nccl_node.h"

namespace cuda {

using backend::Proposal;
using backend::Stream;
using backend::Tensor;
using std::chrono::milliseconds;

namespace {

class NcclCommunicator final : public backend::Communicator {
 public:
  NcclCommunicator(std::shared_ptr<NcclNode> node, const NcclApi& api, int rank)
      : node_(std::move(node)), api_(api), rank_(rank) {}
  ~NcclCommunicator() override { node_->close(); }
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  int rank() const override { return rank_; }
  int rank_count() const override { return node_->rank_count(); }

  // What is moved only is moved as bytes.
  void all_gather(const Tensor& out, const Tensor& in, Stream& stream) override {
    CHECK(out.dtype == in.dtype && out.element_count() == in.element_count() * rank_count());
    collective("all_gather", in, stream, [&](ncclComm_t comm, cudaStream_t handle) {
      return api_.all_gather(in.data, out.data, size_t(in.byte_count()), ncclInt8, comm, handle);
    });
  }
  void reduce_scatter(const Tensor& out, const Tensor& in, Stream& stream) override {
    CHECK(in.element_count() == out.element_count() * rank_count());
    collective("reduce_scatter", in, stream, [&](ncclComm_t comm, cudaStream_t handle) {
      return api_.reduce_scatter(in.as<float>(), out.as<float>(), size_t(out.element_count()),
                                 ncclFloat32, ncclSum, comm, handle);
    });
  }
  void all_reduce(const Tensor& data, Stream& stream) override {
    collective("all_reduce", data, stream, [&](ncclComm_t comm, cudaStream_t handle) {
      float* const values = data.as<float>();
      return api_.all_reduce(values, values, size_t(data.element_count()), ncclFloat32, ncclSum,
                             comm, handle);
    });
  }
  void broadcast(const Tensor& data, int root, Stream& stream) override {
    CHECK(root >= 0 && root < rank_count());
    collective("broadcast", data, stream, [&](ncclComm_t comm, cudaStream_t handle) {
      return api_.broadcast(data.data, data.data, size_t(data.byte_count()), ncclInt8, root, comm,
                            handle);
    });
  }
  void barrier() override { node_->barrier(rank_); }
  void abort(const std::string& reason) override { node_->fail(reason); }
  void check() override { node_->require_working(); }

 private:
  template <class Call>
  void collective(const char* operation, const Tensor& tensor, const Stream& stream,
                  const Call& call) {
    const Proposal proposal{
        .operation = operation, .element_count = tensor.element_count(), .dtype = tensor.dtype};
    // By reference, so that no memory is needed for it.
    node_->collective(rank_, proposal, stream, std::ref(call));
  }

  const std::shared_ptr<NcclNode> node_;
  const NcclApi& api_;
  const int rank_;
};

}  // namespace

std::vector<std::unique_ptr<backend::Communicator>> make_nccl_communicators(
    const std::vector<int>& devices, milliseconds timeout) {
  const auto api = load_nccl();
  if (!api) {
    throw base::bad_input(
        fmt::format("NCCL, which several GPUs need, cannot be had: {}", api.reason()),
        "Install NCCL 2 for this CUDA version, or train with one rank and start "
        "a node for each GPU.");
  }
  const auto node = std::make_shared<NcclNode>(**api, devices, timeout);
  node->start();
  std::vector<std::unique_ptr<backend::Communicator>> communicators;
  for (size_t rank = 0; rank < devices.size(); ++rank)
    communicators.push_back(std::make_unique<NcclCommunicator>(node, **api, int(rank)));
  return communicators;
}

}  // namespace cuda
