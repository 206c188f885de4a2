// The numerator and the divisor of a trimmed mean, element by element.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace outer {

// In each element the rows' numbers have ranks, equal ones in the order of the rows. Those of the
// `trimmed` lowest and highest ranks do not count. Of the others, in the order of the rows and each
// operation rounded to fp32:
//   sum = sum + factor * number;  weight = weight + factor
// Rows become what they have in the sum: factor * number, or 0. Where all numbers are finite, no
// sum becomes NaN.
// REQUIRES: rows and factors are as many, more than 2 * trimmed; all rows have the length of `sum`
// and `weight`; factors are positive.
void trimmed_sum(std::span<const std::span<float>> rows, std::span<const float> factors,
                 int64_t trimmed, std::span<float> sum, std::span<float> weight);

}  // namespace outer
