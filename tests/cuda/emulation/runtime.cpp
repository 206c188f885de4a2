// The emulated devices: 4 multiprocessors each, and what fake_device() says. Memory comes filled
// with 0xff, which as a number is NaN: whoever reads what nobody wrote is found out. Work runs at
// once, on the calling thread; a stream can be made to look as if it did not (fake_device.h).
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "emulation/cuda_runtime_api.h"
#include "emulation/fake_device.h"

using emulation::Hold;

struct emulation::HoldState {
  bool is_released = false;
  std::vector<Hold> others;
};
struct EmulatedStream {
  int device;
  std::vector<Hold> holds;
};
struct EmulatedEvent {
  int device;
  std::vector<Hold> holds;  // Those of the stream when it was recorded.
  std::chrono::steady_clock::time_point time;
};

namespace {

constexpr size_t kAlignment = 256;
constexpr int kToolkitVersion = 13000;

struct Allocation {
  size_t byte_count;
  int device;
};

std::mutex mutex;  // Of everything here.
std::condition_variable released;
std::map<void*, Allocation> device_buffers;
std::map<int, size_t> used_bytes;

thread_local int current_device = 0;

size_t total_bytes() {
  return size_t(emulation::fake_device().total_bytes);
}

cudaError_t allocate(void** memory, size_t byte_count) {
  const size_t rounded = (byte_count + kAlignment - 1) / kAlignment * kAlignment;
  *memory = std::aligned_alloc(kAlignment, rounded);
  if (*memory == nullptr) return cudaErrorMemoryAllocation;
  std::memset(*memory, 0xff, rounded);
  return cudaSuccess;
}

// REQUIRES: locked. Forgets those that have been released.
bool is_held(std::vector<Hold>& holds) {
  std::erase_if(holds,
                [](const Hold& hold) { return hold->is_released && !is_held(hold->others); });
  return !holds.empty();
}
void wait_until_free(std::vector<Hold>& holds) {
  std::unique_lock lock(mutex);
  released.wait(lock, [&] { return !is_held(holds); });
}

}  // namespace

namespace emulation {

FakeDevice& fake_device() {
  static FakeDevice device;
  return device;
}

Hold hold(cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  stream->holds.push_back(std::make_shared<HoldState>());
  return stream->holds.back();
}

void release(const Hold& hold, const std::vector<Hold>& others) {
  const std::lock_guard lock(mutex);
  hold->is_released = true;
  // Those that are released themselves stand for what they wait for: no chains.
  for (const Hold& other : others) {
    std::vector<Hold> open = other->is_released ? other->others : std::vector<Hold>{other};
    for (const Hold& one : open) {
      if (std::ranges::find(hold->others, one) == hold->others.end()) hold->others.push_back(one);
    }
  }
  released.notify_all();
}

std::vector<Hold> holds_of(cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  return is_held(stream->holds) ? stream->holds : std::vector<Hold>();
}

// The default stream is the current device's.
cudaError_t launch_status(cudaStream_t stream) {
  const bool fits = stream == nullptr || stream->device == current_device;
  return fits ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

int device_of(cudaStream_t stream) {
  return stream->device;
}

}  // namespace emulation

const char* cudaGetErrorName(cudaError_t) {
  return "cudaErrorEmulated";
}
const char* cudaGetErrorString(cudaError_t) {
  return "an error of the emulated device";
}
cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  const emulation::FakeDevice& fake = emulation::fake_device();
  *count = 0;
  if (fake.driver_version < kToolkitVersion) return cudaErrorInsufficientDriver;
  *count = fake.count;
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  const emulation::FakeDevice& fake = emulation::fake_device();
  const bool is_last = device == fake.count - 1;
  *properties = {};
  const char* const other_name = is_last ? fake.name_of_last : "";
  std::strcpy(properties->name, *other_name != '\0' ? other_name : "emulated GPU");
  properties->totalGlobalMem = total_bytes();
  properties->major = fake.capability_major;
  properties->multiProcessorCount = 4;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= emulation::fake_device().count) return cudaErrorInvalidDevice;
  current_device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* address, int byte_count, int device) {
  std::snprintf(address, size_t(byte_count), "ffff:%02x:00.0", unsigned(device));
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* lowest, int* highest) {
  *lowest = 0;
  *highest = -5;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = emulation::fake_device().driver_version;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kToolkitVersion;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  const std::lock_guard lock(mutex);
  *total_bytes = ::total_bytes();
  *free_bytes = *total_bytes - used_bytes[current_device];
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** memory, size_t byte_count) {
  const std::lock_guard lock(mutex);
  size_t& used = used_bytes[current_device];
  if (used + byte_count > total_bytes()) return cudaErrorMemoryAllocation;
  const cudaError_t status = allocate(memory, byte_count);
  if (status != cudaSuccess) return status;
  device_buffers[*memory] = {byte_count, current_device};
  used += byte_count;
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  const std::lock_guard lock(mutex);
  if (const auto found = device_buffers.find(memory); found != device_buffers.end()) {
    used_bytes[found->second.device] -= found->second.byte_count;
    device_buffers.erase(found);
  }
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** memory, size_t byte_count, unsigned) {
  return allocate(memory, byte_count);
}
cudaError_t cudaFreeHost(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t byte_count, cudaMemcpyKind,
                            cudaStream_t) {
  if (byte_count > 0) std::memmove(target, source, byte_count);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* memory, int value, size_t byte_count, cudaStream_t stream) {
  const cudaError_t status = emulation::launch_status(stream);
  if (status == cudaSuccess && byte_count > 0) std::memset(memory, value, byte_count);
  return status;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  *stream = new EmulatedStream{.device = current_device, .holds = {}};
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream != nullptr) wait_until_free(stream->holds);
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const std::lock_guard lock(mutex);
  if (is_held(event->holds))
    stream->holds.insert(stream->holds.end(), event->holds.begin(), event->holds.end());
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new EmulatedEvent{.device = current_device, .holds = {}, .time = {}};
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard lock(mutex);
  if (event->device != (stream != nullptr ? stream->device : current_device))
    return cudaErrorInvalidResourceHandle;
  event->holds = stream != nullptr ? stream->holds : std::vector<Hold>();
  event->time = std::chrono::steady_clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const std::lock_guard lock(mutex);
  return is_held(event->holds) ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  wait_until_free(event->holds);
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  const std::lock_guard lock(mutex);
  if (begin->device != end->device) return cudaErrorInvalidResourceHandle;
  if (is_held(begin->holds) || is_held(end->holds)) return cudaErrorNotReady;
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return cudaSuccess;
}
