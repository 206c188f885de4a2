// A compute device: its memory, its streams, and the order of what runs on it.
//
// Everything that takes a Stream is asynchronous: it returns once the work is queued, and work on
// one stream runs in order. The CPU device runs everything at once, on the calling thread and its
// pool; a Stream is then a formality, but the callers do not know that.
//
// Threads: any may call, one at a time per stream. A thread that calls the operations of a device's
// backend::Ops calls enter_thread() first, once.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "backend/tensor.h"

namespace backend {

inline constexpr int kRanksMax = 64;  // Of a node.

// Opaque; owned by the device.
class Stream {
 public:
  virtual ~Stream() = default;
};

// A point in a stream's order.
class Event {
 public:
  virtual ~Event() = default;
};

// Memory of a device, freed by the destructor. The device outlives it.
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual void* data() const = 0;
  virtual int64_t byte_count() const = 0;

  Tensor tensor(DType dtype, const Shape& shape) const {
    CHECK(shape.element_count() * bytes_per_element(dtype) <= byte_count());
    return {data(), dtype, shape};
  }
};

class Device {
 public:
  virtual ~Device() = default;

  virtual void enter_thread() = 0;

  virtual std::string name() const = 0;  // "AMD EPYC, 2 threads", "NVIDIA H100 80GB HBM3"
  // The type of weights and activations: fp32 on CPUs, bf16 on GPUs. Masters, moments and gradients
  // are fp32 on both.
  virtual DType compute_dtype() const = 0;

  // Zero-filled, 64-byte aligned (256 on GPUs). Throws resource_lost with a hint when memory is
  // short. `label` names it in the memory report. Nothing is allocated in steady state: after
  // set_steady(), allocating is a bug.
  virtual std::unique_ptr<Buffer> allocate(int64_t byte_count, const std::string& label) = 0;
  // The same in host memory that the device can copy from and to quickly (pinned on GPUs).
  virtual std::unique_ptr<Buffer> allocate_host(int64_t byte_count, const std::string& label) = 0;
  virtual void set_steady(bool steady) = 0;

  // The main stream of the rank, and three beside it: for copies from and to the host, for
  // collectives, and for products that others do not wait for.
  virtual Stream& compute_stream() = 0;
  virtual Stream& copy_stream() = 0;
  virtual Stream& communication_stream() = 0;
  virtual Stream& side_stream() = 0;

  // Any direction between this device and the host, and within the memory of both.
  virtual void copy(void* target, const void* source, int64_t byte_count, Stream& stream) = 0;
  virtual std::unique_ptr<Event> record(Stream& stream) = 0;
  virtual void wait(Stream& stream, const Event& event) = 0;  // The stream waits, not the host.
  virtual void synchronize(Stream& stream) = 0;               // The host waits.
  virtual void synchronize(const Event& event) = 0;           // Likewise.
  // Between two events that have happened, on the device's own clock.
  virtual double seconds_between(const Event& begin, const Event& end) = 0;

  // Held by the buffers of allocate() now; those of allocate_host() do not count.
  virtual int64_t allocated_bytes() const = 0;
  // In use on the whole device, as its driver counts: by all programs, libraries and contexts
  // included. 0 where nobody knows, as on CPUs.
  virtual int64_t used_bytes() const = 0;
  // All memory that a rank can have: of the device, divided by the ranks that share it.
  virtual int64_t total_bytes() const = 0;
  // Of dense products in the compute dtype by the data sheet, in FLOP/s; 0 if nobody knows.
  virtual double peak_flops() const = 0;
  // The host's NUMA node next to the device; -1: unknown, or none is nearer than another.
  virtual int numa_node() const = 0;
};

}  // namespace backend
