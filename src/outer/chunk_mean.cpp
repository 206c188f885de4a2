#include "outer/chunk_mean.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace outer {

namespace {

// Of an even number, the lower of the two in the middle.
template <class T>
T median_of(std::vector<T> values) {
  const auto middle = values.begin() + std::ptrdiff_t((values.size() - 1) / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

// Parts are finite, but a sum of parts close to the largest float may round up to infinity; never
// to NaN.
void encode_sum(std::span<float> sum, Piece piece, const Codec& codec,
                std::span<std::byte> encoded) {
  if (codec.encode_piece(sum, piece, encoded)) return;
  constexpr float kLargest = std::numeric_limits<float>::max();
  for (float& value : sum) value = std::clamp(value, -kLargest, kLargest);
  CHECK(codec.encode_piece(sum, piece, encoded).ok());
}

}  // namespace

std::vector<double> ReachRule::factors(std::span<const PartLength> parts) const {
  constexpr size_t kVoicesMin = 3;
  std::vector<double> factors(parts.size(), 1.0);
  std::vector<double> norms;
  std::vector<int64_t> weights;
  for (const PartLength& part : parts) {
    if (part.norm <= 0) continue;
    norms.push_back(part.norm);
    weights.push_back(part.weight_tokens);
  }
  if (norm_max <= 0 || norms.size() < kVoicesMin) return factors;
  const double norm = median_of(norms);
  const double weight = double(std::max<int64_t>(1, median_of(weights)));
  for (size_t i = 0; i < parts.size(); ++i) {
    const double farther = std::clamp(double(parts[i].weight_tokens) / weight, 1.0, norm_max);
    const double reach = std::max(norm_max * farther * norm, norm_floor);
    if (parts[i].norm > norm_max * reach) {
      factors[i] = 0;
    } else if (parts[i].norm > reach) {
      factors[i] = reach / parts[i].norm;
    }
  }
  return factors;
}

ChunkMean mean_of(std::span<const net::FragmentStore::Part> parts, int64_t element_count,
                  const CodecPair& codecs, const ReachRule& rule) {
  CHECK(!parts.empty());
  std::vector<PartLength> lengths;
  for (const auto& part : parts) {
    const double squares = codecs.contribution.sum_of_squares(part.encoded(), element_count);
    lengths.push_back({.norm = std::sqrt(squares), .weight_tokens = part.weight_tokens});
  }
  ChunkMean result{.mean = {}, .reach = rule.factors(lengths)};
  int64_t total = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (result.reach[i] > 0) {
      total += parts[i].weight_tokens;
    } else {
      result.mean.left_out.push_back(parts[i].peer);
    }
  }
  const double even = 1.0 / double(parts.size() - result.mean.left_out.size());

  result.mean.encoded.resize(size_t(codecs.result.encoded_bytes(element_count)));
  for (int64_t first = 0; first < element_count; first += kPieceElements) {
    const Piece piece{.first = first, .chunk_elements = element_count};
    float values[kPieceElements] = {};
    const std::span<float> sum(values, size_t(std::min(kPieceElements, element_count - first)));
    for (size_t i = 0; i < parts.size(); ++i) {
      if (result.reach[i] == 0) continue;
      const double share = total > 0 ? double(parts[i].weight_tokens) / double(total) : even;
      codecs.contribution.decode_add_piece(parts[i].encoded(), piece,
                                           float(share * result.reach[i]), sum);
    }
    encode_sum(sum, piece, codecs.result, result.mean.encoded);
  }
  return result;
}

}  // namespace outer
