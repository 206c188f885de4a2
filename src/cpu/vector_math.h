// Arithmetic that the compiler can turn into vector instructions: no calls, no branches, no tables.
// Include it only in files of this folder: they are compiled for newer processors than the rest,
// and everything here is internal to its file for that reason.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

// For functions that are one loop with `#pragma omp simd reduction`. GCC 12 forgets the pragma when
// it duplicates such a loop for the branches around it, and then adds one number after the other:
// so there is nothing around it.
#define VECTOR_LOOP [[gnu::noinline]]

namespace cpu {
namespace {

// e^x within 2 ulp. Below the smallest normal result it is 0, above x = 88 it stops growing
// (1.7e38), a NaN stays a NaN.
//
// x = n ln 2 + r with an integer n and |r| <= ln 2 / 2; e^r by a polynomial, 2^n through the
// exponent bits. ln 2 is subtracted in two parts, of which the first has enough zero bits to make n
// * kLn2High exact.
inline float exp_fast(float x) {
  constexpr float kLog2e = 1.44269504f;
  constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound =
      12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits.
  constexpr float kMin = -87.33654f, kMax = 88.02f;

  float bounded = x > kMax ? kMax : x;
  bounded = bounded < kMin ? kMin : bounded;
  const float shifted = bounded * kLog2e + kRound;
  const float n = shifted - kRound;
  const float r = (bounded - n * kLn2High) - n * kLn2Low;
  // The minimax polynomial of Cephes' expf.
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const float power_of_2 = std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) + 127) << 23);
  const float result = p * power_of_2;
  const float below_top = x > kMax ? std::numeric_limits<float>::infinity() : result;
  return x < kMin ? 0.0f : below_top;
}

// 1 / (1 + e^-x).
inline float sigmoid(float x) {
  return 1.0f / (1.0f + exp_fast(-x));
}

}  // namespace
}  // namespace cpu
