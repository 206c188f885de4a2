// What the tests of operations share: a backend with tensors made from doubles, comparison with a
// reference, central differences, and a stopwatch.
//
// Method of all files here: the operation is written again, naively and in double; where there is a
// backward, its formula is first compared with central differences of that reference (tightly, both
// are double), and then the backend with it. All values that go in are floats, so the reference
// sees the same input.
#pragma once

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "support/catch.h"

namespace ops_test {

using backend::DType;
using backend::Shape;
using backend::Tensor;
using Values = std::vector<double>;

// Normal with mean 0, rounded to float. The generator is fixed by the standard, the distribution is
// our own sum of uniforms: the same values everywhere.
inline Values random_values(int64_t count, uint64_t seed, double deviation = 1) {
  std::mt19937_64 generator(seed);
  Values values(static_cast<size_t>(count));
  for (double& value : values) {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += double(generator() >> 11) * 0x1p-53;
    value = float(sum * deviation);
  }
  return values;
}

inline std::vector<int32_t> random_integers(int64_t count, uint64_t seed, int32_t below) {
  std::mt19937_64 generator(seed);
  std::vector<int32_t> values(static_cast<size_t>(count));
  for (int32_t& value : values) value = int32_t(generator() % uint64_t(below));
  return values;
}

// A backend, and tensors in its memory.
class Rig {
 public:
  explicit Rig(int threads)
      : backend_(std::move(backend::make_cpu_backends({.threads_per_rank = threads}).front())) {}

  backend::Ops& ops() { return *backend_.ops; }
  backend::Device& device() { return *backend_.device; }
  backend::Stream& stream() { return backend_.device->compute_stream(); }

  Tensor upload(const Values& values, const Shape& shape) {
    const std::vector<float> floats(values.begin(), values.end());
    return upload_raw(floats.data(), DType::kFloat32, shape);
  }
  Tensor upload(const std::vector<int32_t>& values, const Shape& shape) {
    return upload_raw(values.data(), DType::kInt32, shape);
  }
  // For outputs that are overwritten: whoever reads it before is found out.
  Tensor poisoned(const Shape& shape) {
    return upload(Values(static_cast<size_t>(shape.element_count()),
                         std::numeric_limits<double>::quiet_NaN()),
                  shape);
  }
  Tensor upload_raw(const void* source, DType dtype, const Shape& shape) {
    const int64_t bytes = shape.element_count() * backend::bytes_per_element(dtype);
    buffers_.push_back(device().allocate(bytes, "test"));
    device().copy(buffers_.back()->data(), source, bytes, stream());
    device().synchronize(stream());
    return buffers_.back()->tensor(dtype, shape);
  }

  Values download(const Tensor& tensor) {
    std::vector<float> floats(static_cast<size_t>(tensor.element_count()));
    download_raw(floats.data(), tensor);
    return Values(floats.begin(), floats.end());
  }
  void download_raw(void* target, const Tensor& tensor) {
    device().copy(target, tensor.data, tensor.byte_count(), stream());
    device().synchronize(stream());
  }

 private:
  backend::Backend backend_;
  std::vector<std::unique_ptr<backend::Buffer>> buffers_;  // Before backend_ in destruction.
};

// Allowed distance: relative * |expected| + of_largest * max |expected| + absolute.
struct Tolerance {
  double relative = 0;
  double of_largest = 0;
  double absolute = 0;  // Where terms of known size cancel.
};

inline void require_close(const Values& actual, const Values& expected, Tolerance tolerance) {
  REQUIRE(actual.size() == expected.size());
  double largest = 0;
  for (double value : expected) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < expected.size(); ++i) {
    const double allowed = tolerance.relative * std::abs(expected[i]) +
                           tolerance.of_largest * largest + tolerance.absolute;
    const double distance = std::abs(actual[i] - expected[i]);
    if (!(distance <= allowed)) {  // Also true for a NaN.
      INFO("element " << i << " of " << expected.size() << ": " << actual[i] << ", expected "
                      << expected[i] << ", allowed distance " << allowed);
      REQUIRE(distance <= allowed);
    }
  }
}

// Several tensors with the tolerance of each.
struct Expected {
  Values values;
  Tolerance tolerance;
};
// Runs an operation on a rig and returns the tensors that it wrote, in the order of the Expected.
using Run = std::function<std::vector<Values>(Rig&)>;

// Runs it with 1, 2 and 3 threads, twice each: two runs have the same bits, and all are close to
// what is expected.
inline void require_everywhere(const Run& run, const std::vector<Expected>& expected) {
  for (int threads : {1, 2, 3}) {
    INFO("threads " << threads);
    Rig rig(threads);
    const std::vector<Values> first = run(rig), second = run(rig);
    REQUIRE(first.size() == expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      INFO("output " << i);
      REQUIRE(std::memcmp(first[i].data(), second[i].data(), first[i].size() * sizeof(double)) ==
              0);
      require_close(first[i], expected[i].values, expected[i].tolerance);
    }
  }
}

// The gradient of sum(weights * f(x)) by central differences.
inline Values central_differences(const std::function<Values(const Values&)>& f, Values x,
                                  const Values& weights) {
  auto sum = [&] {
    const Values y = f(x);
    REQUIRE(y.size() == weights.size());
    double total = 0;
    for (size_t i = 0; i < y.size(); ++i) total += weights[i] * y[i];
    return total;
  };
  Values gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double middle = x[i], step = 1e-5 * std::max(1.0, std::abs(middle));
    x[i] = middle + step;
    const double above = sum();
    x[i] = middle - step;
    gradient[i] = (above - sum()) / (2 * step);
    x[i] = middle;
  }
  return gradient;
}

// Error of central differences in double is about 1e-10.
inline constexpr Tolerance kDifferences{.of_largest = 1e-7};

// Times `body` on all processors, and prints one JSON line. `flop` and `bytes` are per call; what
// is 0 is not printed.
struct Benchmark {
  std::string name, shape;
  double flop = 0, bytes = 0;
};
void run_benchmark(Rig& rig, const Benchmark& benchmark, const std::function<void()>& body);

}  // namespace ops_test
