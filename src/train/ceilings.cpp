#include "train/ceilings.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>
#include <functional>
#include <numbers>

#include "base/hash.h"
#include "base/math.h"

namespace train {
namespace {

using backend::Buffer;
using backend::DType;
using backend::Tensor;

// No power of two and no multiple of a row, so that copies of it do not line up in a tile.
constexpr int64_t kNormalCount = 2 * base::kMiB + 8 * 257;

// Box-Muller: two at a time.
std::vector<float> normal_numbers(int64_t count) {
  base::Random random(1);
  std::vector<float> numbers;
  while (int64_t(numbers.size()) < count) {
    const double radius = std::sqrt(-2 * std::log(1 - random.uniform()));
    const double angle = 2 * std::numbers::pi * random.uniform();
    numbers.push_back(float(radius * std::cos(angle)));
    numbers.push_back(float(radius * std::sin(angle)));
  }
  return numbers;
}

// Fills buffers of one device with a block of normal numbers, again and again.
class NormalBlock {
 public:
  NormalBlock(backend::Backend& backend, int64_t count_max) : device_(*backend.device) {
    const int64_t count = base::round_up(std::min(count_max, kNormalCount), 2);
    const auto numbers = normal_numbers(count);
    auto& stream = device_.compute_stream();
    const DType dtype = device_.compute_dtype();
    const auto wide = device_.allocate(count * 4, "bench numbers");
    device_.copy(wide->data(), numbers.data(), count * 4, stream);
    block_ = device_.allocate(count * backend::bytes_per_element(dtype), "bench numbers");
    backend.ops->cast(
        {.out = block_->tensor(dtype, {count}), .in = wide->tensor(DType::kFloat32, {count})},
        stream);
    device_.synchronize(stream);
  }

  std::unique_ptr<Buffer> fill(int64_t byte_count) const {
    auto buffer = device_.allocate(byte_count, "bench operand");
    auto& stream = device_.compute_stream();
    for (int64_t at = 0; at < byte_count; at += block_->byte_count()) {
      device_.copy(static_cast<char*>(buffer->data()) + at, block_->data(),
                   std::min(block_->byte_count(), byte_count - at), stream);
    }
    device_.synchronize(stream);
    return buffer;
  }

 private:
  backend::Device& device_;
  std::unique_ptr<Buffer> block_;
};

// Mean seconds of `queue_one` over at least `seconds` on the device's clock. Batches of them stand
// between two waits, so that the host is not what is measured.
double sustained_seconds(backend::Device& device, double seconds,
                         const std::function<void()>& queue_one) {
  constexpr double kBatchSeconds = 0.05;
  auto& stream = device.compute_stream();
  const auto time_batch = [&](int64_t count) {
    const auto begin = device.record(stream);
    for (int64_t i = 0; i < count; ++i) queue_one();
    const auto end = device.record(stream);
    device.synchronize(*end);
    return device.seconds_between(*begin, *end);
  };
  time_batch(1);  // Chooses a kernel, and warms up caches and pages.
  const double first = std::max(time_batch(1), 1e-6);
  const int64_t batch =
      std::clamp(int64_t(std::min(kBatchSeconds, seconds) / first), int64_t{1}, int64_t{1000});
  double total = 0;
  int64_t count = 0;
  while (total < seconds || count == 0) {
    total += time_batch(batch);
    count += batch;
  }
  return total / double(count);
}

void attempt(const std::string& what, Ceilings& ceilings, const std::function<void()>& body) {
  try {
    body();
  } catch (const std::exception& error) {
    const char* const separator = ceilings.error.empty() ? "" : "; ";
    ceilings.error += fmt::format("{}{}: {}", separator, what, error.what());
  }
}

double copy_rate(backend::Device& device, double seconds) {
  constexpr int64_t kBytes = 256 * base::kMiB;
  const auto from = device.allocate(kBytes, "bench copy");
  const auto to = device.allocate(kBytes, "bench copy");
  const double one = sustained_seconds(device, seconds, [&] {
    device.copy(to->data(), from->data(), kBytes, device.compute_stream());
  });
  return 2.0 * double(kBytes) / one;
}

double product_rate(backend::Backend& backend, const NormalBlock& numbers,
                    const ProductShape& shape, double seconds) {
  const auto dtype = backend.device->compute_dtype();
  const auto bytes = [&](int64_t count) { return count * backend::bytes_per_element(dtype); };
  const auto a = numbers.fill(bytes(shape.m * shape.k));
  const auto b = numbers.fill(bytes(shape.n * shape.k));
  const auto out = backend.device->allocate(bytes(shape.m * shape.n), "bench out");
  const backend::MatmulArgs args = {.out = out->tensor(dtype, {shape.m, shape.n}),
                                    .a = a->tensor(dtype, {shape.m, shape.k}),
                                    .b = b->tensor(dtype, {shape.n, shape.k}),
                                    .transpose_b = true};
  const double one = sustained_seconds(*backend.device, seconds, [&] {
    backend.ops->matmul(args, backend.device->compute_stream());
  });
  return 2.0 * double(shape.m) * double(shape.n) * double(shape.k) / one;
}

void measure_products(backend::Backend& backend, const std::vector<ProductShape>& shapes,
                      const CeilingTimes& times, Ceilings& ceilings) {
  int64_t count_max = 0;
  for (const ProductShape& shape : shapes)
    count_max = std::max(count_max, std::max(shape.m, shape.n) * shape.k);
  attempt("random numbers", ceilings, [&] {
    const NormalBlock numbers(backend, count_max);
    for (const ProductShape& shape : shapes) {
      attempt(fmt::format("product {}", name_of(shape)), ceilings, [&] {
        const bool is_first = &shape == &shapes.front();
        const double flops = product_rate(backend, numbers, shape,
                                          is_first ? times.headline_seconds : times.shape_seconds);
        ceilings.products.push_back({shape, flops});
        ceilings.flops = std::max(ceilings.flops, flops);
      });
    }
  });
}

}  // namespace

std::string name_of(const ProductShape& shape) {
  return fmt::format("{}x{}x{}", shape.m, shape.n, shape.k);
}

Ceilings measure_ceilings(backend::Backend& backend, const std::vector<ProductShape>& shapes,
                          const CeilingTimes& times) {
  Ceilings ceilings;
  measure_products(backend, shapes, times, ceilings);
  if (times.copy_seconds > 0) {
    attempt("copy", ceilings,
            [&] { ceilings.bytes_per_second = copy_rate(*backend.device, times.copy_seconds); });
  }
  return ceilings;
}

}  // namespace train
