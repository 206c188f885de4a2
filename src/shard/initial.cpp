// Initial values of parameters. Peers compare digests of their initial state, so a value must have
// the same bits on every machine. Philox gives the same random words everywhere; what turns them
// into normal numbers here uses only additions, multiplications, divisions and square roots, which
// IEEE 754 rounds in one way only. The logarithm of a C library is not among those, so there is one
// of our own.
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

// Element i of a tensor is word i mod 4 of Philox block i / 4; a value beyond the cut is drawn
// again from the same place of the next attempt's blocks.
double draw(uint64_t seed, uint64_t tensor_key, int64_t element, double cut) {
  for (uint64_t attempt = 0;; ++attempt) {
    const uint64_t block = uint64_t(element) / 4 | attempt << 56;
    const uint32_t word = base::philox(seed, block, tensor_key)[size_t(element % 4)];
    const double x = inverse_normal((double(word) + 0.5) * 0x1.0p-32);
    if (cut == 0 || (x >= -cut && x <= cut) || attempt == 255) return x;
  }
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
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = float(deviation * draw(seed, tensor_key, first + int64_t(i), spec.initializer.cut));
  }
}

}  // namespace shard
