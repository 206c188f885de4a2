// Puts the CUDA backend together: which GPUs, what moves data between them, which attention, where
// product plans are kept.
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fmt/format.h>

#include "backend/in_process.h"
#include "base/log.h"
#include "cuda/check.h"
#include "cuda/cuda_backend.h"
#include "cuda/nccl_communicator.h"
#include "cuda/solo_communicator.h"

namespace cuda {
namespace {

std::unique_ptr<Attention> choose_attention(const backend::CudaOptions& options, Scratch& scratch) {
  if (options.attention == "plain") return make_plain_attention(scratch);
  auto attention = make_cudnn_attention(scratch, options.deterministic);
  if (attention.ok()) return std::move(*attention);
  if (options.attention == "cudnn") {
    throw base::bad_input(fmt::format("cuDNN attention cannot be had: {}", attention.reason()),
                          "Install cuDNN 9 for this CUDA version, or set node.attention to plain.");
  }
  base::log_warning(
      "attention without cuDNN, many times slower: {}; install cuDNN 9 for this CUDA version",
      attention.reason());
  return make_plain_attention(scratch);
}

std::string plan_file(const backend::CudaOptions& options, const DeviceProperties& properties) {
  if (options.cache_folder.empty()) return "";
  std::string name = properties.name;
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '-';
  }
  return fmt::format("{}/products-{}{}.txt", options.cache_folder, name,
                     options.deterministic ? "-deterministic" : "");
}

// How the ranks of a node meet.
enum class Transport { kNone, kNccl, kInProcess };

struct Placement {
  std::vector<int> devices;  // Of each rank.
  int ranks_per_device = 1;
  Transport transport = Transport::kNone;
};

Transport choose_transport(const std::string& wanted, int ranks, bool is_shared) {
  if (wanted == "nccl" && is_shared) {
    throw base::bad_input(fmt::format("NCCL cannot serve {} ranks on one GPU", ranks),
                          "Set the communicator to auto, or ask for one rank.");
  }
  if (wanted == "in_process" && ranks > 1 && !is_shared) {
    throw base::bad_input(fmt::format("the communicator in_process cannot serve {} GPUs", ranks),
                          "It is for ranks that share one GPU: set the communicator to auto.");
  }
  if (wanted == "nccl") return Transport::kNccl;
  if (wanted == "in_process") return Transport::kInProcess;
  if (ranks == 1) return Transport::kNone;
  return is_shared ? Transport::kInProcess : Transport::kNccl;
}

Placement place_ranks(const backend::CudaOptions& options, int device_count) {
  const int ranks = options.ranks > 0 ? options.ranks : device_count;
  const bool is_shared = ranks > device_count;
  if (ranks > backend::kRanksMax) {
    throw base::bad_input(fmt::format("{} ranks were asked for", ranks),
                          fmt::format("A node has at most {}.", backend::kRanksMax));
  }
  if (is_shared && device_count > 1) {
    throw base::bad_input(
        fmt::format("{} ranks were asked for, {} GPUs were found", ranks, device_count),
        "Ask for 0 ranks to use every GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES.");
  }
  Placement placement{.devices = {},
                      .ranks_per_device = is_shared ? ranks : 1,
                      .transport = choose_transport(options.communicator, ranks, is_shared)};
  for (int rank = 0; rank < ranks; ++rank) placement.devices.push_back(is_shared ? 0 : rank);
  if (is_shared)
    base::log_warning("{} ranks share one GPU: for tests, it makes training slower", ranks);
  return placement;
}

// What products may spread over; 0: all.
int product_multiprocessors(const backend::CudaOptions& options, const Placement& placement,
                            const DeviceProperties& properties) {
  const bool has_collectives =
      placement.transport == Transport::kNccl && placement.devices.size() > 1;
  if (!has_collectives || options.communication_multiprocessors == 0) return 0;
  return std::max(1, properties.multiprocessors - options.communication_multiprocessors);
}

// Of each rank's GPU.
std::vector<DeviceProperties> read_all_properties(const Placement& placement) {
  std::vector<DeviceProperties> all;
  for (const int device : placement.devices) {
    all.push_back(read_properties(device));
    if (all.back().name != all.front().name) {
      base::log_warning("GPU {} is another kind ({}) than GPU 0 ({}): the slowest sets the pace",
                        device, all.back().name, all.front().name);
    }
  }
  return all;
}

}  // namespace

CudaOps::CudaOps(const DeviceProperties& properties, const backend::CudaOptions& options,
                 int multiprocessors, Scratch& scratch)
    : properties_(properties),
      scratch_(scratch),
      matmul_(Matmul::create({.deterministic = options.deterministic,
                              .tune = options.tune_products,
                              .multiprocessors = multiprocessors,
                              .cache_file = plan_file(options, properties)})),
      attention_(choose_attention(options, scratch)) {}

}  // namespace cuda

namespace backend {
namespace {

std::vector<std::unique_ptr<Communicator>> make_communicators(
    const CudaOptions& options, const cuda::Placement& placement,
    const std::vector<Backend>& backends) {
  std::vector<std::unique_ptr<Communicator>> communicators;
  switch (placement.transport) {
    case cuda::Transport::kNone:
      communicators.push_back(std::make_unique<cuda::SoloCommunicator>());
      return communicators;
    case cuda::Transport::kNccl:
      return cuda::make_nccl_communicators(placement.devices, options.collective_timeout);
    case cuda::Transport::kInProcess:
      break;
  }
  std::vector<InProcessRank> ranks;
  for (const Backend& one : backends)
    ranks.push_back({.device = one.device.get(), .ops = one.ops.get()});
  return make_in_process_communicators(ranks, options.collective_timeout);
}

}  // namespace

std::vector<Backend> make_cuda_backends(const CudaOptions& options) {
  prepare_cuda(options.ranks);
  if (!cuda::has_gpus(std::getenv("CUDA_VISIBLE_DEVICES"))) {
    int driver = 0;
    if (cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0) cuda::require_driver();
    throw base::bad_input("device cuda was asked for, but no NVIDIA GPU was found",
                          "Check nvidia-smi and CUDA_VISIBLE_DEVICES, or set device to cpu.");
  }
  cuda::require_driver();
  const cuda::Placement placement = cuda::place_ranks(options, count_cuda_devices());
  const auto properties = cuda::read_all_properties(placement);
  std::vector<Backend> backends;
  for (size_t rank = 0; rank < placement.devices.size(); ++rank) {
    auto device =
        cuda::make_device(placement.devices[rank], properties[rank], placement.ranks_per_device);
    auto ops = std::make_unique<cuda::CudaOps>(
        properties[rank], options,
        cuda::product_multiprocessors(options, placement, properties[rank]), device->scratch());
    backends.push_back(
        {.device = std::move(device), .ops = std::move(ops), .communicator = nullptr});
  }
  auto communicators = make_communicators(options, placement, backends);
  for (size_t rank = 0; rank < backends.size(); ++rank)
    backends[rank].communicator = std::move(communicators[rank]);
  return backends;
}

void prepare_cuda(int ranks) {
  // A kernel that is loaded at its first use can wait for the GPUs, and they for a collective that
  // its rank has not come to. Loading all takes time and memory, so not for one rank.
  const bool may_have_others =
      ranks == 0 ? cuda::count_possible_gpus(std::getenv("CUDA_VISIBLE_DEVICES")) > 1 : ranks > 1;
  if (may_have_others) setenv("CUDA_MODULE_LOADING", "EAGER", 0);
}

int count_cuda_devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

bool has_cuda_devices() {
  return cuda::has_gpus(std::getenv("CUDA_VISIBLE_DEVICES"));
}

}  // namespace backend
