// The emulated device: 4 multiprocessors, and what fake_device() says. Memory comes filled with
// 0xff, which as a number is NaN: whoever reads what nobody wrote is found out.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "emulation/cuda_runtime_api.h"
#include "emulation/fake_device.h"

namespace emulation {

FakeDevice& fake_device() {
  static FakeDevice device;
  return device;
}

}  // namespace emulation

struct EmulatedStream {};
struct EmulatedEvent {
  std::chrono::steady_clock::time_point time;
};

namespace {

constexpr size_t kAlignment = 256;

std::mutex mutex;
std::map<void*, size_t> device_buffers;
size_t used_bytes = 0;

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

}  // namespace

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
  *count = emulation::fake_device().count;
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::strcpy(properties->name, "emulated GPU");
  properties->totalGlobalMem = total_bytes();
  properties->major = emulation::fake_device().capability_major;
  properties->multiProcessorCount = 4;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) {
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = emulation::fake_device().driver_version;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  const std::lock_guard lock(mutex);
  *total_bytes = ::total_bytes();
  *free_bytes = *total_bytes - used_bytes;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** memory, size_t byte_count) {
  const std::lock_guard lock(mutex);
  if (used_bytes + byte_count > total_bytes()) return cudaErrorMemoryAllocation;
  const cudaError_t status = allocate(memory, byte_count);
  if (status != cudaSuccess) return status;
  device_buffers[*memory] = byte_count;
  used_bytes += byte_count;
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  const std::lock_guard lock(mutex);
  if (const auto found = device_buffers.find(memory); found != device_buffers.end()) {
    used_bytes -= found->second;
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
cudaError_t cudaMemsetAsync(void* memory, int value, size_t byte_count, cudaStream_t) {
  if (byte_count > 0) std::memset(memory, value, byte_count);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new EmulatedStream;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) {
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new EmulatedEvent;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event->time = std::chrono::steady_clock::now();
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) {
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return cudaSuccess;
}
