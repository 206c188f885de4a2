// The device itself, on the emulated runtime: memory, events, and what is said of a GPU that will
// not do.
#include "cuda/device.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>

#include "base/math.h"
#include "cuda/device_under_test.h"
#include "emulation/fake_device.h"
#include "support/catch.h"
#include "support/temporary_folder.h"

namespace {

using emulation::fake_device;

// Puts the usual device back.
struct Restore {
  ~Restore() { fake_device() = {}; }
};

// As by CUDA_VISIBLE_DEVICES="": the machine of the test may have GPUs of its own.
struct HideGpus {
  HideGpus() {
    if (const char* const value = std::getenv(kName)) before = value;
    setenv(kName, "", 1);
  }
  ~HideGpus() { before ? setenv(kName, before->c_str(), 1) : unsetenv(kName); }
  static constexpr const char* kName = "CUDA_VISIBLE_DEVICES";
  std::optional<std::string> before;
};

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const base::Error& error) {
    return std::string(error.what()) + " / " + error.hint();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("cuda device: memory is zero, aligned and counted", "[device]") {
  auto backend = cuda_test::make_device_under_test();
  backend::Device& device = *backend.device;
  const int64_t before = device.allocated_bytes();
  std::vector<std::unique_ptr<backend::Buffer>> buffers;
  for (const int64_t bytes :
       {int64_t{1}, int64_t{1000}, 70 * base::kMiB, int64_t{0}, 63 * base::kMiB}) {
    buffers.push_back(device.allocate(bytes, "test"));
    const auto* data = static_cast<const unsigned char*>(buffers.back()->data());
    REQUIRE(reinterpret_cast<uintptr_t>(data) % 256 == 0);
    for (int64_t i = 0; i < bytes; i += 997) REQUIRE(data[i] == 0);
  }
  REQUIRE(device.allocated_bytes() - before == 1001 + 133 * base::kMiB);
  // No two overlap.
  for (size_t i = 0; i < buffers.size(); ++i) {
    std::memset(buffers[i]->data(), int(i) + 1, size_t(buffers[i]->byte_count()));
  }
  for (size_t i = 0; i < buffers.size(); ++i) {
    const auto* data = static_cast<const unsigned char*>(buffers[i]->data());
    for (int64_t at = 0; at < buffers[i]->byte_count(); at += 1021) REQUIRE(data[at] == i + 1);
  }
  buffers.clear();
  REQUIRE(device.allocated_bytes() == before);
}

TEST_CASE("cuda device: the driver counts what is in use beside the buffers", "[device]") {
  auto backend = cuda_test::make_device_under_test();
  backend::Device& device = *backend.device;
  const int64_t before = device.used_bytes();
  const auto buffer = device.allocate(70 * base::kMiB, "test");
  REQUIRE(device.used_bytes() == before + 70 * base::kMiB);
  void* beside = nullptr;
  REQUIRE(cudaMalloc(&beside, 1000) == cudaSuccess);
  REQUIRE(device.used_bytes() == before + 70 * base::kMiB + 1000);
  cudaFree(beside);
}

TEST_CASE("cuda device: memory that was given back can be had again", "[device]") {
  const Restore restore;
  fake_device().total_bytes = 60 * base::kMiB;
  auto backend = cuda_test::make_device_under_test();
  for (int i = 0; i < 20; ++i) {
    const auto large = backend.device->allocate(30 * base::kMiB, "large");
    const auto small = backend.device->allocate(1000, "small");
  }
}

TEST_CASE("cuda device: too little memory is said with numbers and a hint", "[device]") {
  const Restore restore;
  fake_device().total_bytes = base::kGiB;
  auto backend = cuda_test::make_device_under_test();
  const std::string error =
      error_of([&] { backend.device->allocate(2 * base::kGiB, "activations: qkv"); });
  INFO(error);
  REQUIRE(contains(error, "activations: qkv needs 2.00 GiB"));
  REQUIRE(contains(error, "of 1.00 GiB are free"));
  REQUIRE(contains(error, "training.recompute"));
}

TEST_CASE("cuda device: a GPU that is too old is named", "[device]") {
  const Restore restore;
  fake_device().capability_major = 7;
  const std::string error = error_of([] { cuda_test::make_device_under_test(); });
  INFO(error);
  REQUIRE(contains(error, "emulated GPU of compute capability 7.0"));
  REQUIRE(contains(error, "8.0"));
}

TEST_CASE("cuda device: a driver that is too old is named", "[device]") {
  const Restore restore;
  fake_device().driver_version = 12040;
  const test::TemporaryFolder devices;
  const auto find = [&](const char* visible) { return cuda::has_gpus(visible, devices.path()); };
  REQUIRE(!find(nullptr));  // There is no GPU: the CPU is what is left.
  std::ofstream(devices.file("nvidia0")) << "";
  std::string error = error_of([&] { find(nullptr); });
  INFO(error);
  REQUIRE(error == error_of([] { cuda_test::make_device_under_test(); }));
  REQUIRE(contains(error, "knows CUDA 12.4"));
  REQUIRE(contains(error, "13.0"));
  REQUIRE(contains(error, "set device to cpu"));
  REQUIRE(error_of([&] { find("0"); }) == error);
  // On purpose.
  REQUIRE(!find(""));
  REQUIRE(!find("-1"));

  fake_device().driver_version = 0;
  error = error_of([&] { find(nullptr); });
  REQUIRE(contains(error, "no NVIDIA driver"));
}

TEST_CASE("cuda device: GPUs that CUDA does not find are bad input, not the CPU", "[device]") {
  const Restore restore;
  const test::TemporaryFolder devices;
  for (const char* const name : {"nvidia0", "nvidia1"}) std::ofstream(devices.file(name)) << "";
  REQUIRE(cuda::has_gpus(nullptr, devices.path()));
  fake_device().count = 0;
  const std::string error = error_of([&] { cuda::has_gpus(nullptr, devices.path()); });
  INFO(error);
  REQUIRE(contains(error, "2 NVIDIA GPUs"));
  REQUIRE(contains(error, devices.path()));
  REQUIRE(!cuda::has_gpus("", devices.path()));
}

TEST_CASE("cuda device: no GPU at all", "[device]") {
  const Restore restore;
  fake_device().count = 0;
  REQUIRE(backend::count_cuda_devices() == 0);
  const HideGpus hidden;
  REQUIRE(!backend::has_cuda_devices());
  REQUIRE(contains(error_of([] { cuda_test::make_device_under_test(); }), "no NVIDIA GPU"));
}

TEST_CASE("cuda device: copies and events", "[device]") {
  auto backend = cuda_test::make_device_under_test();
  backend::Device& device = *backend.device;
  const auto pinned = device.allocate_host(1000, "pinned");
  const auto buffer = device.allocate(1000, "buffer");
  std::memset(pinned->data(), 7, 1000);
  auto& stream = device.copy_stream();
  const auto begin = device.record(stream);
  device.copy(buffer->data(), pinned->data(), 1000, stream);
  const auto end = device.record(stream);
  device.wait(device.compute_stream(), *end);
  device.synchronize(*end);
  REQUIRE(std::memcmp(buffer->data(), pinned->data(), 1000) == 0);
  REQUIRE(device.seconds_between(*begin, *end) >= 0);
  REQUIRE(device.compute_dtype() == backend::DType::kBfloat16);
  REQUIRE(device.allocated_bytes() >= 1000);
}

TEST_CASE("cuda device: threads that call it from another device", "[device]") {
  const Restore restore;
  fake_device().count = 2;
  std::vector<backend::Backend> backends =
      backend::make_cuda_backends({.ranks = 2, .attention = "plain", .tune_products = false});
  for (size_t i = 0; i < 2; ++i) {
    backend::Device& device = *backends[i].device;
    // Each method selects its device: memory, events and streams of one device belong together.
    backends[1 - i].device->enter_thread();
    const auto buffer = device.allocate(1000, "test");
    backends[1 - i].device->enter_thread();
    const auto begin = device.record(device.copy_stream());
    const auto end = device.record(device.communication_stream());
    device.wait(device.compute_stream(), *end);
    device.synchronize(device.compute_stream());
    REQUIRE(device.seconds_between(*begin, *end) >= 0);
  }
  // A kernel starts on the current device, which enter_thread() chooses.
  const auto values = backends[1].device->allocate(1000, "values");
  const backend::Tensor tensor = values->tensor(backend::DType::kFloat32, {250});
  const auto add = [&] {
    backends[1].ops->add({.out = tensor, .in = tensor}, backends[1].device->compute_stream());
  };
  backends[0].device->enter_thread();
  REQUIRE(contains(error_of(add), "starting a kernel"));
  backends[1].device->enter_thread();
  REQUIRE(error_of(add).empty());
}

TEST_CASE("cuda device: streams of a rank", "[device]") {
  auto backend = cuda_test::make_device_under_test();
  backend::Device& device = *backend.device;
  REQUIRE(&device.communication_stream() != &device.compute_stream());
  REQUIRE(&device.communication_stream() != &device.copy_stream());
  REQUIRE(&device.side_stream() != &device.compute_stream());
  REQUIRE(&device.side_stream() != &device.communication_stream());
  REQUIRE(device.numa_node() >= -1);
}

TEST_CASE("cuda device: GPUs are counted before CUDA starts", "[device]") {
  const test::TemporaryFolder devices;
  const auto count = [&](const char* visible) {
    return cuda::count_possible_gpus(visible, devices.path());
  };
  REQUIRE(count(nullptr) == 0);
  REQUIRE(cuda::count_possible_gpus(nullptr, devices.file("missing")) == 0);
  for (const char* const name :
       {"nvidia0", "nvidia3", "nvidia12", "nvidiactl", "nvidia-uvm", "nvidia", "null"})
    std::ofstream(devices.file(name)) << "";
  REQUIRE(count(nullptr) == 3);
  REQUIRE(count("") == 0);
  for (const char* const hidden : {"-1", "none", "NoDevFiles", "void"}) REQUIRE(count(hidden) == 0);
  REQUIRE(count("GPU-8932f937-d72c") == 1);
  REQUIRE(count("MIG-1,MIG-2") == 2);
  REQUIRE(count("-1") == 0);
  REQUIRE(count("1") == 1);
  REQUIRE(count("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,GPU-1") == 2);
  REQUIRE(count("0,1,2,3") == 3);
}
