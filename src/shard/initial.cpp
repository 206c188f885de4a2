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
#include "shard/parameters.h"

namespace shard {
namespace {

// Natural logarithm of a positive normal number: x = m * 2^e with m near 1, and log m = 2
// artanh(s), s = (m-1)/(m+1).
double portable_log(double x) {
  constexpr double kLog2 = 0x1.62e42fefa39efp-1;
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  int exponent = int(bits >> 52) - 1023;
  double mantissa = std::bit_cast<double>((bits & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000);
  if (mantissa > 1.4142135623730951) {
    mantissa *= 0.5;
    ++exponent;
  }
  const double s = (mantissa - 1) / (mantissa + 1);
  const double square = s * s;  // At most 0.0295, so the first term left out is below 1e-17.
  double sum = 0;
  for (int power = 21; power >= 1; power -= 2) sum = sum * square + 1.0 / power;
  return double(exponent) * kLog2 + 2 * s * sum;
}

// c[0] + c[1] x + ... + c[7] x^7.
double polynomial(const double (&c)[8], double x) {
  double sum = c[7];
  for (int i = 6; i >= 0; --i) sum = sum * x + c[i];
  return sum;
}

// The x with P(normal < x) = p, to 16 digits: Wichura, "Algorithm AS 241: the percentage points of
// the normal distribution", Applied Statistics 37 (1988). Its third region, p < exp(-25), cannot
// occur: p is at least 2^-33.
double inverse_normal(double p) {
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
  if (q >= -0.425 && q <= 0.425) {
    const double r = 0.180625 - q * q;
    return q * polynomial(kCentreTop, r) / polynomial(kCentreBottom, r);
  }
  const double r = std::sqrt(-portable_log(q < 0 ? p : 1 - p)) - 1.6;
  const double x = polynomial(kTailTop, r) / polynomial(kTailBottom, r);
  return q < 0 ? -x : x;
}

uint64_t name_key(const std::string& name) {
  const base::Digest digest = base::sha256(std::as_bytes(std::span(name.data(), name.size())));
  uint64_t key = 0;
  for (int i = 7; i >= 0; --i) key = key << 8 | digest.bytes[size_t(i)];
  return key;
}

using Block = std::array<double, 4>;

// Elements 4 * index to 4 * index + 3 of a tensor, of deviation 1.
Block draw_block(uint64_t seed, uint64_t tensor_key, uint64_t index, uint64_t attempt) {
  const auto words = base::philox(seed, index | attempt << 56, tensor_key);
  Block block;
  for (size_t lane = 0; lane < 4; ++lane) {
    block[lane] = inverse_normal((double(words[lane]) + 0.5) * 0x1.0p-32);
  }
  return block;
}

// The same; what lies beyond the cut is replaced by the same element of the next attempt's block.
Block draw_cut_block(uint64_t seed, uint64_t tensor_key, uint64_t index, double cut) {
  constexpr uint64_t kAttemptsMax =
      256;  // Never needed: with a cut of 1, each fails once in three.
  Block block = draw_block(seed, tensor_key, index, 0);
  if (cut == 0) return block;
  const auto is_beyond = [&](double x) { return x < -cut || x > cut; };
  for (uint64_t attempt = 1;
       attempt < kAttemptsMax && std::any_of(block.begin(), block.end(), is_beyond); ++attempt) {
    const Block again = draw_block(seed, tensor_key, index, attempt);
    for (size_t lane = 0; lane < 4; ++lane) {
      if (is_beyond(block[lane])) block[lane] = again[lane];
    }
  }
  return block;
}

}  // namespace

void fill_initial(const TensorSpec& spec, uint64_t seed, int64_t first, std::span<float> values) {
  CHECK(first >= 0 && first + int64_t(values.size()) <= spec.shape.element_count());
  const double deviation = spec.initializer.standard_deviation;
  if (deviation == 0) {
    for (float& value : values) value = 1;
    return;
  }
  const uint64_t tensor_key = name_key(spec.name);
  const int64_t end = first + int64_t(values.size());
  for (int64_t index = first / 4; index * 4 < end; ++index) {
    const Block block = draw_cut_block(seed, tensor_key, uint64_t(index), spec.initializer.cut);
    for (int64_t element = std::max(first, index * 4); element < std::min(end, index * 4 + 4);
         ++element) {
      values[size_t(element - first)] = float(deviation * block[size_t(element % 4)]);
    }
  }
}

}  // namespace shard
