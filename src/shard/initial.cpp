// Initial values of parameters. Peers compare digests of their initial state, so a value must have
// the same bits on every machine. Philox gives the same random words everywhere; what turns them
// into normal numbers here uses only additions, multiplications, divisions and square roots, which
// IEEE 754 rounds in one way only. The logarithm of a C library is not among those, so there is one
// of our own.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "base/hash.h"
#include "base/math.h"
#include "shard/parameters.h"

namespace shard {
namespace {

// Values are made in batches, by loops without branches, which a compiler turns into vector
// instructions: they round as the scalar ones do.
constexpr int64_t kBatch = 256;
using Batch = std::array<double, size_t(kBatch)>;

// Natural logarithm of a positive normal number: x = m * 2^e with m near 1, and log m = 2
// artanh(s), s = (m-1)/(m+1).
inline double portable_log(double x) {
  constexpr double kLog2 = 0x1.62e42fefa39efp-1;
  // 1 / 21, 1 / 19, ... 1: divided by the compiler.
  constexpr std::array<double, 11> kCoefficients = [] {
    std::array<double, 11> c{};
    for (int i = 0; i < 11; ++i) c[size_t(i)] = 1.0 / (21 - 2 * i);
    return c;
  }();
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  const double mantissa = std::bit_cast<double>((bits & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000);
  const bool is_large = mantissa > 1.4142135623730951;
  const double near_one = is_large ? mantissa * 0.5 : mantissa;
  const double exponent = double(int32_t(bits >> 52) - 1023) + (is_large ? 1.0 : 0.0);
  const double s = (near_one - 1) / (near_one + 1);
  const double square = s * s;  // At most 0.0295, so the first term left out is below 1e-17.
  double sum = 0;
  for (const double coefficient : kCoefficients) sum = sum * square + coefficient;
  return exponent * kLog2 + 2 * s * sum;
}

// c[0] + c[1] x + ... + c[7] x^7.
inline double polynomial(const double (&c)[8], double x) {
  double sum = c[7];
  for (int i = 6; i >= 0; --i) sum = sum * x + c[i];
  return sum;
}

constexpr double kCentreHalfWidth = 0.425;

// The first region of the function below: |q| <= 0.425, q = p - 0.5.
inline double centre(double q) {
  constexpr double kCentreTop[8] = {3.3871328727963666080e0, 1.3314166789178437745e2,
                                    1.9715909503065514427e3, 1.3731693765509461125e4,
                                    4.5921953931549871457e4, 6.7265770927008700853e4,
                                    3.3430575583588128105e4, 2.5090809287301226727e3};
  constexpr double kCentreBottom[8] = {1.0,
                                       4.2313330701600911252e1,
                                       6.8718700749205790830e2,
                                       5.3941960214247511077e3,
                                       2.1213794301586595867e4,
                                       3.9307895800092710610e4,
                                       2.8729085735721942674e4,
                                       5.2264952788528545610e3};
  const double r = 0.180625 - q * q;
  return q * polynomial(kCentreTop, r) / polynomial(kCentreBottom, r);
}

// The second one: what lies outside of the first.
inline double tail(double p) {
  constexpr double kTailTop[8] = {1.42343711074968357734e0,  4.63033784615654529590e0,
                                  5.76949722146069140550e0,  3.64784832476320460504e0,
                                  1.27045825245236838258e0,  2.41780725177450611770e-1,
                                  2.27238449892691845833e-2, 7.74545014278341407640e-4};
  constexpr double kTailBottom[8] = {1.0,
                                     2.05319162663775882187e0,
                                     1.67638483018380384940e0,
                                     6.89767334985100004550e-1,
                                     1.48103976427480074590e-1,
                                     1.51986665636164571966e-2,
                                     5.47593808499534494600e-4,
                                     1.05075007164441684324e-9};
  const double q = p - 0.5;
  const double r = std::sqrt(-portable_log(q < 0 ? p : 1 - p)) - 1.6;
  const double x = polynomial(kTailTop, r) / polynomial(kTailBottom, r);
  return q < 0 ? -x : x;
}

// For the first `count` values p: the x with P(normal < x) = p, to 16 digits: Wichura, "Algorithm
// AS 241: the percentage points of the normal distribution", Applied Statistics 37 (1988). Its
// third region, p < exp(-25), cannot occur: p is at least 2^-33.
void inverse_normal(Batch& values, size_t count) {
  Batch tails;
  std::array<int32_t, size_t(kBatch)> places;
  size_t tail_count = 0;
  for (size_t i = 0; i < count; ++i) {
    tails[tail_count] = values[i];
    places[tail_count] = int32_t(i);
    tail_count += std::abs(values[i] - 0.5) > kCentreHalfWidth;
  }
  for (size_t i = 0; i < count; ++i) values[i] = centre(values[i] - 0.5);
  for (size_t i = 0; i < tail_count; ++i) tails[i] = tail(tails[i]);
  for (size_t i = 0; i < tail_count; ++i) values[size_t(places[i])] = tails[i];
}

uint64_t name_key(const std::string& name) {
  const base::Digest digest = base::sha256(std::as_bytes(std::span(name.data(), name.size())));
  uint64_t key = 0;
  for (int i = 7; i >= 0; --i) key = key << 8 | digest.bytes[size_t(i)];
  return key;
}

// What makes one tensor's values.
struct Source {
  uint64_t seed = 0;
  uint64_t tensor_key = 0;

  // One word for each of elements 4 * index to 4 * index + 3.
  std::array<uint32_t, 4> words(uint64_t index, uint64_t attempt) const {
    return base::philox(seed, index | attempt << 56, tensor_key);
  }
};

double probability(uint32_t word) {
  return (double(word) + 0.5) * 0x1.0p-32;
}

// Elements 4 * index to 4 * index + 4 * block_count - 1 of a tensor, of deviation 1.
void draw(const Source& source, uint64_t index, size_t block_count, Batch& values) {
  for (size_t block = 0; block < block_count; ++block) {
    const auto words = source.words(index + block, 0);
    for (size_t lane = 0; lane < 4; ++lane) values[4 * block + lane] = probability(words[lane]);
  }
  inverse_normal(values, 4 * block_count);
}

// What lies beyond the cut is replaced by the same element of the next attempt's words.
double draw_again(const Source& source, uint64_t element, double cut) {
  constexpr uint64_t kAttemptsMax =
      256;  // Never needed: with a cut of 1, each fails once in three.
  Batch value;
  for (uint64_t attempt = 1; attempt < kAttemptsMax; ++attempt) {
    value[0] = probability(source.words(element / 4, attempt)[element % 4]);
    inverse_normal(value, 1);
    if (std::abs(value[0]) <= cut) break;
  }
  return value[0];
}

}  // namespace

void fill_initial(const TensorSpec& spec, uint64_t seed, int64_t first, std::span<float> values) {
  CHECK(first >= 0 && first + int64_t(values.size()) <= spec.shape.element_count());
  const double deviation = spec.initializer.standard_deviation;
  if (deviation == 0) {
    for (float& value : values) value = 1;
    return;
  }
  const Source source{.seed = seed, .tensor_key = name_key(spec.name)};
  const double cut = spec.initializer.cut;
  const int64_t end = first + int64_t(values.size());
  Batch batch;
  // Batches begin at multiples of 4 elements, which one index makes.
  for (int64_t begin = first / 4 * 4; begin < end; begin += kBatch) {
    const int64_t count = std::min(kBatch, end - begin);
    draw(source, uint64_t(begin / 4), size_t(base::div_ceil(count, 4)), batch);
    for (int64_t i = std::max<int64_t>(0, first - begin); i < count; ++i) {
      double& x = batch[size_t(i)];
      if (cut != 0 && std::abs(x) > cut) x = draw_again(source, uint64_t(begin + i), cut);
      values[size_t(begin + i - first)] = float(deviation * x);
    }
  }
}

}  // namespace shard
