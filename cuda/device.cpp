// A GPU's memory, streams and events. Buffers are cut from slabs, so that starting costs few calls
// into the driver; a slab goes back when its last buffer does.
//
// A thread has a current device, and most calls mean that one: so every method selects its own
// first, whichever thread it is called from.
#include "cuda/device.h"

#include <algorithm>
#include <atomic>
#include <cctype>
#include <filesystem>
#include <fmt/format.h>
#include <mutex>
#include <vector>

#include "base/log.h"
#include "base/math.h"
#include "base/numa.h"
#include "cuda/check.h"

namespace cuda {

using backend::Buffer;
using backend::Event;
using backend::Stream;

namespace {

constexpr int64_t kAlignment = 256;
constexpr int64_t kSlabBytes = 8 * base::kMiB;

// One allocation of the driver's.
class Slab {
 public:
  Slab(int64_t byte_count, const std::string& label) : byte_count_(byte_count) {
    const cudaError_t status = cudaMalloc(&memory_, size_t(byte_count));
    if (status == cudaSuccess) return;
    cudaGetLastError();  // It is sticky until somebody asks.
    size_t free_bytes = 0, total_bytes = 0;
    cudaMemGetInfo(&free_bytes, &total_bytes);
    throw base::resource_lost(
        fmt::format("GPU memory is short: {} needs {:.2f} GiB, {:.2f} of {:.2f} GiB are free",
                    label, double(byte_count) / base::kGiB, double(free_bytes) / base::kGiB,
                    double(total_bytes) / base::kGiB),
        "Use fewer rows per micro-batch, more recomputation (training.recompute), "
        "node.memory lean, or a GPU that no other program uses.");
  }
  ~Slab() { cudaFree(memory_); }
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  // nullptr if there is no room.
  void* take(int64_t byte_count) {
    if (used_ + byte_count > byte_count_) return nullptr;
    void* const data = static_cast<char*>(memory_) + used_;
    used_ += byte_count;
    return data;
  }

 private:
  void* memory_ = nullptr;
  const int64_t byte_count_;
  int64_t used_ = 0;
};

class DeviceBuffer final : public Buffer {
 public:
  DeviceBuffer(std::shared_ptr<Slab> slab, void* data, int64_t byte_count,
               std::atomic<int64_t>& total)
      : slab_(std::move(slab)), data_(data), byte_count_(byte_count), total_(total) {
    total_ += byte_count_;
  }
  ~DeviceBuffer() override { total_ -= byte_count_; }
  void* data() const override { return data_; }
  int64_t byte_count() const override { return byte_count_; }

 private:
  const std::shared_ptr<Slab> slab_;
  void* const data_;
  const int64_t byte_count_;
  std::atomic<int64_t>& total_;
};

class PinnedBuffer final : public Buffer {
 public:
  PinnedBuffer(int64_t byte_count, const std::string& label) : byte_count_(byte_count) {
    const size_t bytes = size_t(std::max<int64_t>(byte_count, 1));
    if (cudaHostAlloc(&data_, bytes, cudaHostAllocDefault) != cudaSuccess) {
      cudaGetLastError();
      throw base::resource_lost(
          fmt::format("cannot pin {:.2f} GiB of host memory for {}",
                      double(byte_count) / base::kGiB, label),
          "Free memory on the host, or raise its limit of locked memory (ulimit -l).");
    }
    std::fill_n(static_cast<char*>(data_), bytes, char{0});
  }
  ~PinnedBuffer() override { cudaFreeHost(data_); }
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  void* data() const override { return data_; }
  int64_t byte_count() const override { return byte_count_; }

 private:
  void* data_ = nullptr;
  const int64_t byte_count_;
};

// Events are used again: making one can synchronise the whole device.
class EventPool {
 public:
  ~EventPool() {
    for (cudaEvent_t event : free_) cudaEventDestroy(event);
  }
  cudaEvent_t take() {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      cudaEvent_t const event = free_.back();
      free_.pop_back();
      return event;
    }
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDefault), "making an event");
    return event;
  }
  void give_back(cudaEvent_t event) {
    const std::lock_guard lock(mutex_);
    free_.push_back(event);
  }

 private:
  std::mutex mutex_;
  std::vector<cudaEvent_t> free_;
};

class CudaEvent final : public Event {
 public:
  explicit CudaEvent(std::shared_ptr<EventPool> pool)
      : pool_(std::move(pool)), handle_(pool_->take()) {}
  ~CudaEvent() override { pool_->give_back(handle_); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;
  cudaEvent_t handle() const { return handle_; }

 private:
  // An event that another rank waits for may outlive the device.
  const std::shared_ptr<EventPool> pool_;
  const cudaEvent_t handle_;
};

cudaEvent_t handle_of_event(const Event& event) {
  return static_cast<const CudaEvent&>(event).handle();
}

// The legacy default stream would wait for all others and they for it.
cudaStream_t make_stream(int device, int priority) {
  cudaStream_t stream = nullptr;
  select_device(device);
  check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, priority), "making a stream");
  return stream;
}

int highest_priority(int device) {
  int lowest = 0, highest = 0;
  select_device(device);
  check(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "asking for priorities");
  return highest;
}

int numa_node_of(int device) {
  char address[32] = "";
  if (cudaDeviceGetPCIBusId(address, sizeof(address), device) == cudaSuccess)
    return base::numa_node_of_pci_device(address);
  cudaGetLastError();
  return -1;
}

class CudaDevice final : public GpuDevice {
 public:
  CudaDevice(int device, const DeviceProperties& properties, int ranks)
      : device_(device),
        properties_(properties),
        ranks_(ranks),
        numa_node_(numa_node_of(device)),
        compute_(make_stream(device, 0)),
        copy_(make_stream(device, 0)),
        // So that a collective starts when it can, not when the compute stream leaves a gap: all
        // other ranks wait in theirs.
        communication_(make_stream(device, highest_priority(device))),
        side_(make_stream(device, 0)) {}
  ~CudaDevice() override {
    cudaStreamDestroy(compute_.handle());
    cudaStreamDestroy(copy_.handle());
    cudaStreamDestroy(communication_.handle());
    cudaStreamDestroy(side_.handle());
  }

  void enter_thread() override { select_device(device_); }

  Scratch& scratch() override { return scratch_; }
  std::string name() const override { return properties_.name; }
  backend::DType compute_dtype() const override { return backend::DType::kBfloat16; }

  std::unique_ptr<Buffer> allocate(int64_t byte_count, const std::string& label) override;
  std::unique_ptr<Buffer> allocate_host(int64_t byte_count, const std::string& label) override;
  void set_steady(bool steady) override {
    is_steady_ = steady;
    scratch_.set_steady(steady);
  }

  Stream& compute_stream() override { return compute_; }
  Stream& copy_stream() override { return copy_; }
  Stream& communication_stream() override { return communication_; }
  Stream& side_stream() override { return side_; }

  void copy(void* target, const void* source, int64_t byte_count, Stream& stream) override {
    select_device(device_);
    check(cudaMemcpyAsync(target, source, size_t(byte_count), cudaMemcpyDefault, handle_of(stream)),
          "copying");
  }
  std::unique_ptr<Event> record(Stream& stream) override {
    select_device(device_);
    auto event = std::make_unique<CudaEvent>(events_);
    check(cudaEventRecord(event->handle(), handle_of(stream)), "recording an event");
    return event;
  }
  void wait(Stream& stream, const Event& event) override {
    select_device(device_);
    check(cudaStreamWaitEvent(handle_of(stream), handle_of_event(event), 0), "waiting");
  }
  void synchronize(Stream& stream) override {
    select_device(device_);
    check(cudaStreamSynchronize(handle_of(stream)), "waiting for a stream");
  }
  void synchronize(const Event& event) override {
    select_device(device_);
    check(cudaEventSynchronize(handle_of_event(event)), "waiting for an event");
  }
  double seconds_between(const Event& begin, const Event& end) override {
    select_device(device_);
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, handle_of_event(begin), handle_of_event(end)),
          "timing");
    return double(milliseconds) * 1e-3;
  }

  int64_t allocated_bytes() const override { return allocated_bytes_; }
  int64_t used_bytes() const override {
    select_device(device_);
    size_t free_bytes = 0, total_bytes = 0;
    check(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for free memory");
    return int64_t(total_bytes - free_bytes);
  }
  int64_t total_bytes() const override { return properties_.total_bytes / ranks_; }
  double peak_flops() const override { return properties_.peak_flops; }
  int numa_node() const override { return numa_node_; }

 private:
  void check_allocation(int64_t byte_count, const std::string& label) const {
    CHECK(byte_count >= 0, "allocation of {} bytes for {}", byte_count, label);
    CHECK(!is_steady_, "allocation of {} bytes for {} in steady state", byte_count, label);
  }

  const int device_;
  const DeviceProperties properties_;
  const int ranks_;  // That share the GPU.
  const int numa_node_;
  Scratch scratch_;
  const std::shared_ptr<EventPool> events_ = std::make_shared<EventPool>();
  CudaStream compute_, copy_, communication_, side_;
  std::mutex allocation_mutex_;
  std::weak_ptr<Slab> slab_;  // The last one, while it lives.
  std::atomic<int64_t> allocated_bytes_ = 0;
  std::atomic<bool> is_steady_ = false;
};

// Large buffers have a slab of their own.
std::unique_ptr<Buffer> CudaDevice::allocate(int64_t byte_count, const std::string& label) {
  check_allocation(byte_count, label);
  select_device(device_);
  const std::lock_guard lock(allocation_mutex_);
  const int64_t rounded = base::round_up(std::max<int64_t>(byte_count, 1), kAlignment);
  std::shared_ptr<Slab> slab = slab_.lock();
  void* data = slab ? slab->take(rounded) : nullptr;
  if (data == nullptr) {
    slab = std::make_shared<Slab>(std::max(rounded, kSlabBytes), label);
    data = slab->take(rounded);
    if (rounded < kSlabBytes) slab_ = slab;
  }
  check(cudaMemsetAsync(data, 0, size_t(rounded), compute_.handle()), "clearing memory");
  synchronize(compute_);
  return std::make_unique<DeviceBuffer>(std::move(slab), data, byte_count, allocated_bytes_);
}

std::unique_ptr<Buffer> CudaDevice::allocate_host(int64_t byte_count, const std::string& label) {
  check_allocation(byte_count, label);
  select_device(device_);
  return std::make_unique<PinnedBuffer>(byte_count, label);
}

// Dense bf16, by NVIDIA's data sheets.
double data_sheet_flops(const std::string& name) {
  const auto has = [&](const char* part) { return name.find(part) != std::string::npos; };
  if (has("H100 PCIe")) return 756e12;
  if (has("H100 NVL")) return 835e12;
  if (has("H100") || has("H200") || has("GH200")) return 989e12;
  if (has("H20")) return 148e12;
  if (has("B200") || has("GB200")) return 2250e12;
  if (has("B100")) return 1750e12;
  if (has("A100") || has("A800")) return 312e12;
  if (has("L40S")) return 362e12;
  if (has("RTX 4090")) return 165e12;
  if (has("RTX 3090")) return 71e12;
  return 0;
}

}  // namespace

DeviceProperties read_properties(int device) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "asking for the device's properties");
  if (properties.major < 8) {
    throw base::bad_input(
        fmt::format("GPU {} is an {} of compute capability {}.{}; bf16 needs 8.0", device,
                    properties.name, properties.major, properties.minor),
        "Use an A100, H100 or newer, hide this GPU (CUDA_VISIBLE_DEVICES), or set device to cpu.");
  }
  return {.name = properties.name,
          .multiprocessors = properties.multiProcessorCount,
          .total_bytes = int64_t(properties.totalGlobalMem),
          .peak_flops = data_sheet_flops(properties.name)};
}

int count_possible_gpus(const char* visible, const std::string& device_files) {
  int count = 0;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(device_files, ignored)) {
    const std::string name = entry.path().filename();  // "nvidia0", beside "nvidiactl" and others.
    const std::string number = name.starts_with("nvidia") ? name.substr(6) : "";
    count += !number.empty() && std::ranges::all_of(number, [](char c) {
      return std::isdigit(static_cast<unsigned char>(c)) != 0;
    });
  }
  if (visible == nullptr) return count;
  // Anything else in the first place hides all: "-1", "none", or what batch systems write.
  const std::string_view names = visible;
  const bool is_number =
      !names.empty() && std::isdigit(static_cast<unsigned char>(names.front())) != 0;
  if (!is_number && !names.starts_with("GPU-") && !names.starts_with("MIG-")) return 0;
  return std::min(count, 1 + int(std::ranges::count(names, ',')));
}

bool has_gpus(const char* visible, const std::string& device_files) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) return true;
  cudaGetLastError();
  const int possible = count_possible_gpus(visible, device_files);
  if (possible == 0) return false;
  require_driver();
  throw base::bad_input(
      fmt::format("{} NVIDIA GPUs seem to be there ({}/nvidia*), but CUDA cannot use them: {}",
                  possible, device_files, cudaGetErrorString(status)),
      "Check nvidia-smi and CUDA_VISIBLE_DEVICES, or set device to cpu.");
}

void require_driver() {
  int driver = 0, runtime = 0;
  check(cudaDriverGetVersion(&driver), "asking for the driver's version");
  check(cudaRuntimeGetVersion(&runtime), "asking for the toolkit's version");
  // A driver of the same major version serves newer minor ones.
  if (driver / 1000 >= runtime / 1000) return;
  const std::string found = driver == 0 ? "no NVIDIA driver was found (libcuda.so.1)"
                                        : fmt::format("the NVIDIA driver knows CUDA {}.{}",
                                                      driver / 1000, driver % 1000 / 10);
  throw base::bad_input(
      fmt::format("{}, this program was built with {}.{}", found, runtime / 1000,
                  runtime % 1000 / 10),
      "Install a newer driver, build with an older toolkit, or set device to cpu.");
}

void select_device(int device) {
  thread_local int selected = -1;
  if (selected == device) return;
  check(cudaSetDevice(device), "choosing the device");
  selected = device;
}

std::unique_ptr<GpuDevice> make_device(int device, const DeviceProperties& properties, int ranks) {
  return std::make_unique<CudaDevice>(device, properties, ranks);
}

}  // namespace cuda
