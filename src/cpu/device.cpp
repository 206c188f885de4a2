// The processor as a device: memory from the kernel, streams that are formalities, and the function
// that puts a backend together. Compiled for the oldest processor, unlike the operations: it is
// what says that the processor is too old.
#include <atomic>
#include <cblas.h>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>

#include "backend/backend.h"
#include "backend/in_process.h"
#include "base/numa.h"
#include "cpu/cpu_backend.h"

namespace cpu {

using backend::Buffer;
using backend::Event;
using backend::Stream;

namespace {

// Pages straight from the kernel: they are zero, and nothing is touched before it is used.
class CpuBuffer final : public Buffer {
 public:
  // `total`, which may be null, counts the bytes of living buffers.
  CpuBuffer(int64_t byte_count, const std::string& label, std::atomic<int64_t>* total)
      : byte_count_(byte_count), total_(total) {
    void* data =
        mmap(nullptr, mapped_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
      throw base::resource_lost(
          fmt::format("cannot allocate {} bytes of memory for {}: {}", byte_count, label,
                      std::strerror(errno)),
          "Use a smaller micro-batch or model, or a machine with more memory.");
    }
    data_ = data;
    // Only advice: large pages make products some percent faster, and a kernel without them is no
    // error.
    if (byte_count >= 4 * base::kMiB) madvise(data_, mapped_bytes(), MADV_HUGEPAGE);
    if (total_) *total_ += byte_count_;
  }
  ~CpuBuffer() override {
    munmap(data_, mapped_bytes());
    if (total_) *total_ -= byte_count_;
  }
  CpuBuffer(const CpuBuffer&) = delete;
  CpuBuffer& operator=(const CpuBuffer&) = delete;

  void* data() const override { return data_; }
  int64_t byte_count() const override { return byte_count_; }

 private:
  size_t mapped_bytes() const { return size_t(std::max<int64_t>(byte_count_, 1)); }

  void* data_ = nullptr;
  const int64_t byte_count_;
  std::atomic<int64_t>* const total_;
};

class CpuStream final : public Stream {};
// Everything before it has run when it is made.
struct CpuEvent final : Event {
  const std::chrono::steady_clock::time_point time = std::chrono::steady_clock::now();
};

std::chrono::steady_clock::time_point time_of(const Event& event) {
  return static_cast<const CpuEvent&>(event).time;
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "CPU";
}

class CpuDevice final : public backend::Device {
 public:
  CpuDevice(int thread_count, int ranks, int numa_node)
      : name_(fmt::format("{}, {} {}", processor_name(), thread_count,
                          thread_count == 1 ? "thread" : "threads")),
        ranks_(ranks),
        numa_node_(numa_node) {}

  void enter_thread() override {}

  std::string name() const override { return name_; }
  backend::DType compute_dtype() const override { return backend::DType::kFloat32; }

  std::unique_ptr<Buffer> allocate(int64_t byte_count, const std::string& label) override {
    check_allocation(byte_count, label);
    return std::make_unique<CpuBuffer>(byte_count, label, &allocated_bytes_);
  }
  std::unique_ptr<Buffer> allocate_host(int64_t byte_count, const std::string& label) override {
    check_allocation(byte_count, label);
    return std::make_unique<CpuBuffer>(byte_count, label, nullptr);
  }
  void set_steady(bool steady) override { steady_ = steady; }

  Stream& compute_stream() override { return compute_stream_; }
  Stream& copy_stream() override { return copy_stream_; }
  Stream& communication_stream() override { return communication_stream_; }
  Stream& side_stream() override { return side_stream_; }

  void copy(void* target, const void* source, int64_t byte_count, Stream&) override {
    if (byte_count > 0) std::memcpy(target, source, size_t(byte_count));
  }
  std::unique_ptr<Event> record(Stream&) override { return std::make_unique<CpuEvent>(); }
  void wait(Stream&, const Event&) override {}
  void synchronize(Stream&) override {}
  void synchronize(const Event&) override {}
  double seconds_between(const Event& begin, const Event& end) override {
    return std::chrono::duration<double>(time_of(end) - time_of(begin)).count();
  }

  int64_t allocated_bytes() const override { return allocated_bytes_; }
  int64_t used_bytes() const override { return 0; }
  int64_t total_bytes() const override {
    return int64_t{sysconf(_SC_PHYS_PAGES)} * int64_t{sysconf(_SC_PAGESIZE)} / ranks_;
  }
  double peak_flops() const override { return 0; }
  int numa_node() const override { return numa_node_; }

 private:
  void check_allocation(int64_t byte_count, const std::string& label) const {
    CHECK(byte_count >= 0, "allocation of {} bytes for {}", byte_count, label);
    CHECK(!steady_, "allocation of {} bytes for {} in steady state", byte_count, label);
  }

  const std::string name_;
  const int ranks_;
  const int numa_node_;
  std::atomic<bool> steady_ = false;
  std::atomic<int64_t> allocated_bytes_ = 0;
  CpuStream compute_stream_, copy_stream_, communication_stream_, side_stream_;
};

// The ranks are dealt out evenly, or not at all: several processes may share the machine, and each
// must leave its nodes equally busy. -1: not at all.
int numa_node_of(int rank, int ranks) {
  const int nodes = base::numa_node_count();
  return nodes > 1 && ranks % nodes == 0 ? rank * nodes / ranks : -1;
}

// The threads of its pool take over where the thread that starts them may run.
std::unique_ptr<backend::Ops> make_ops(int threads, int numa_node) {
  if (numa_node < 0) return std::make_unique<CpuOps>(threads);
  std::unique_ptr<backend::Ops> ops;
  std::thread([&] {
    base::pin_thread_to_numa_node(numa_node);
    ops = std::make_unique<CpuOps>(threads);
  }).join();
  return ops;
}

// Throws if the operations would die on an illegal instruction here.
void require_instructions() {
#if defined(__x86_64__) && defined(ATOLL_CPU_NEEDS_AVX2)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return;
  throw base::bad_input(
      fmt::format(
          "{}: this program was built for processors with AVX2 and FMA, which this one lacks",
          processor_name()),
      "Build it again with meson setup -Dcpu_arch=x86-64.");
#endif
}

}  // namespace

}  // namespace cpu

namespace backend {

std::vector<Backend> make_cpu_backends(const CpuOptions& options) {
  constexpr int kThreadsMax = 1024;
  if (options.ranks < 1 || options.ranks > kRanksMax) {
    throw base::bad_input(
        fmt::format("CPU ranks: expected 1 to {}, found {}", kRanksMax, options.ranks),
        "1 is right unless you test sharding without GPUs.");
  }
  if (options.threads_per_rank < 0 || options.threads_per_rank > kThreadsMax) {
    throw base::bad_input(fmt::format("threads per CPU rank: expected 0 to {}, found {}",
                                      kThreadsMax, options.threads_per_rank),
                          "0 shares all processors among the ranks.");
  }
  cpu::require_instructions();
  openblas_set_num_threads(1);  // The pools of the ranks cut the products.

  const int threads = options.threads_per_rank > 0
                          ? options.threads_per_rank
                          : std::max(1, base::available_processors() / options.ranks);
  std::vector<Backend> backends;
  std::vector<InProcessRank> ranks;
  for (int rank = 0; rank < options.ranks; ++rank) {
    const int node = cpu::numa_node_of(rank, options.ranks);
    backends.push_back({.device = std::make_unique<cpu::CpuDevice>(threads, options.ranks, node),
                        .ops = cpu::make_ops(threads, node),
                        .communicator = nullptr});
    ranks.push_back({backends.back().device.get(), backends.back().ops.get()});
  }
  auto communicators = make_in_process_communicators(ranks, options.collective_timeout);
  for (int rank = 0; rank < options.ranks; ++rank)
    backends[size_t(rank)].communicator = std::move(communicators[size_t(rank)]);
  return backends;
}

}  // namespace backend
