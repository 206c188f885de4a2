// Memory, copies and names of the CPU device, and how backends are made.
//
// A CHECK that should fail is tried in a child process: it aborts, and the test looks at the
// signal.
#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "backend/backend.h"
#include "support/catch.h"

namespace {

using backend::Backend;

Backend make_backend(int threads = 2) {
  return std::move(backend::make_cpu_backends({.threads_per_rank = threads}).front());
}

base::ExitCode code_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const base::Error& error) {
    REQUIRE(!error.hint().empty());
    return error.code();
  }
  return base::ExitCode::kDone;
}

// Whether `body` ends in a CHECK, without the noise.
bool aborts(const std::function<void()>& body) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::signal(SIGABRT, SIG_DFL);  // Catch2's own handler would report a failed test.
    if (!std::freopen("/dev/null", "w", stderr)) _exit(1);
    body();
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

}  // namespace

TEST_CASE("memory is zero, aligned and counted") {
  const Backend cpu = make_backend();
  REQUIRE(cpu.device->allocated_bytes() == 0);
  {
    const auto small = cpu.device->allocate(12, "small"),
               large = cpu.device->allocate(5'000'001, "large");
    const auto empty = cpu.device->allocate(0, "empty"),
               host = cpu.device->allocate_host(100, "host");
    REQUIRE(cpu.device->allocated_bytes() == 5'000'013);
    for (const auto* buffer : {small.get(), large.get(), empty.get(), host.get()}) {
      REQUIRE(reinterpret_cast<uintptr_t>(buffer->data()) % 64 == 0);
      const auto* bytes = static_cast<const unsigned char*>(buffer->data());
      REQUIRE(std::accumulate(bytes, bytes + buffer->byte_count(), int64_t{0}) == 0);
    }
    REQUIRE(small->byte_count() == 12);
    REQUIRE(large->tensor(backend::DType::kFloat32, {2, 3}).data == large->data());
  }
  REQUIRE(cpu.device->allocated_bytes() == 0);
}

TEST_CASE("memory that is not there is a lost resource with a hint") {
  const Backend cpu = make_backend();
  const int64_t too_much = std::numeric_limits<int64_t>::max() / 2;
  REQUIRE(code_of([&] { cpu.device->allocate(too_much, "everything"); }) ==
          base::ExitCode::kResourceLost);
  REQUIRE(code_of([&] { cpu.device->allocate_host(too_much, "everything"); }) ==
          base::ExitCode::kResourceLost);
  REQUIRE(cpu.device->allocated_bytes() == 0);
}

TEST_CASE("allocating in steady state is a bug") {
  const Backend cpu = make_backend();
  cpu.device->set_steady(true);
  REQUIRE(aborts([&] { cpu.device->allocate(4, "late"); }));
  REQUIRE(aborts([&] { cpu.device->allocate_host(4, "late"); }));
  cpu.device->set_steady(false);
  REQUIRE(cpu.device->allocate(4, "early again") != nullptr);
}

TEST_CASE("copies arrive, streams and events order them") {
  const Backend cpu = make_backend();
  backend::Stream &compute = cpu.device->compute_stream(), &copies = cpu.device->copy_stream();
  std::vector<int32_t> source(1000), target(1000);
  std::iota(source.begin(), source.end(), 5);
  const auto buffer = cpu.device->allocate(4000, "between");
  cpu.device->copy(buffer->data(), source.data(), 4000, copies);
  const auto event = cpu.device->record(copies);
  cpu.device->wait(compute, *event);
  cpu.device->copy(target.data(), buffer->data(), 4000, compute);
  cpu.device->copy(nullptr, nullptr, 0, compute);
  cpu.device->synchronize(compute);
  REQUIRE(target == source);
}

TEST_CASE("the device has a name with its threads, and computes in fp32") {
  REQUIRE(make_backend(1).device->name().ends_with(", 1 thread"));
  REQUIRE(make_backend(3).device->name().ends_with(", 3 threads"));
  REQUIRE(make_backend(3).device->name().size() > std::strlen(", 3 threads"));
  REQUIRE(make_backend().device->compute_dtype() == backend::DType::kFloat32);
}

TEST_CASE("impossible counts of ranks and threads are bad input") {
  REQUIRE(code_of([] { backend::make_cpu_backends({.ranks = 0}); }) == base::ExitCode::kBadInput);
  REQUIRE(code_of([] { backend::make_cpu_backends({.ranks = 1'000'000}); }) ==
          base::ExitCode::kBadInput);
  REQUIRE(code_of([] { backend::make_cpu_backends({.threads_per_rank = -1}); }) ==
          base::ExitCode::kBadInput);
  REQUIRE(backend::make_cpu_backends({.ranks = 3}).size() == 3);
}

TEST_CASE("without a GPU, or a build for it, CUDA is bad input and never a crash") {
  if (backend::count_cuda_devices() > 0) return;
  REQUIRE(code_of([] { backend::make_cuda_backends({}); }) == base::ExitCode::kBadInput);
}

TEST_CASE("events of the CPU device have times") {
  const auto backend = std::move(backend::make_cpu_backends({.threads_per_rank = 1}).front());
  backend::Device& device = *backend.device;
  const auto begin = device.record(device.compute_stream());
  const auto end = device.record(device.compute_stream());
  device.synchronize(*end);
  REQUIRE(device.seconds_between(*begin, *end) >= 0);
  REQUIRE(device.seconds_between(*begin, *begin) == 0);
  REQUIRE(device.total_bytes() > (int64_t{1} << 28));
  REQUIRE(device.peak_flops() == 0);  // Nobody knows it.
}
