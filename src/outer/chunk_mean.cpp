#include "outer/chunk_mean.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "outer/block_codec.h"
#include "outer/trimmed_sum.h"

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

using Parts = std::span<const net::FragmentStore::Part>;

// One chunk's mean, a piece after the other.
class MeanMaker {
 public:
  MeanMaker(Parts parts, int64_t element_count, const CodecPair& codecs, const MeanRule& rule,
            const ReadMomentum& momentum)
      : parts_(parts),
        element_count_(element_count),
        codecs_(codecs),
        momentum_(momentum),
        rows_(parts.size() * size_t(kPieceElements)) {
    judge(rule);
    set_factors(rule);
  }

  ChunkMean make() {
    result_.mean.encoded.resize(size_t(codecs_.result.encoded_bytes(element_count_)));
    for (int64_t first = 0; first < element_count_; first += kPieceElements) {
      float values[kPieceElements] = {};
      const auto count = size_t(std::min(kPieceElements, element_count_ - first));
      make_piece({.first = first, .chunk_elements = element_count_}, std::span(values, count));
    }
    return std::move(result_);
  }

 private:
  void judge(const MeanRule& rule) {
    std::vector<PartLength> lengths;
    for (const auto& part : parts_) {
      const double squares = codec_of(part).sum_of_squares(part.encoded(), element_count_);
      lengths.push_back({.norm = std::sqrt(squares), .weight_tokens = part.weight_tokens});
      result_.effects.parts.push_back({.peer = part.peer,
                                       .weight_tokens = part.weight_tokens,
                                       .is_subtotal = part.is_subtotal,
                                       .squares = squares});
    }
    const std::vector<double> factors = rule.reach.factors(lengths);
    for (size_t i = 0; i < parts_.size(); ++i) {
      result_.effects.parts[i].reach = factors[i];
      if (factors[i] == 0) result_.mean.left_out.push_back(parts_[i].peer);
    }
  }

  void set_factors(const MeanRule& rule) {
    int64_t total = 0;
    for (const PartEffect& part : result_.effects.parts)
      total += part.reach > 0 ? part.weight_tokens : 0;
    const double even = 1.0 / double(parts_.size() - result_.mean.left_out.size());
    int64_t voices = 0;
    for (const PartEffect& part : result_.effects.parts) {
      const double share = total > 0 ? double(part.weight_tokens) / double(total) : even;
      factors_.push_back(float(share * part.reach));
      voices += factors_.back() > 0;
    }
    trimmed_count_ = rule.trimmed_count(voices);
  }

  const Codec& codec_of(const net::FragmentStore::Part& part) const {
    return part.is_subtotal ? codecs_.result : codecs_.contribution;
  }

  std::span<float> row(size_t part, size_t count) {
    return std::span(rows_).subspan(part * size_t(kPieceElements), count);
  }

  void make_piece(Piece piece, std::span<float> sum) {
    for (size_t i = 0; i < parts_.size(); ++i)
      codec_of(parts_[i]).decode_piece(parts_[i].encoded(), piece, row(i, sum.size()));
    if (momentum_) add_momentum(piece, sum.size());
    if (trimmed_count_ > 0) {
      trim(sum);
    } else {
      add_up(sum);
    }
    encode_sum(sum, piece, codecs_.result, result_.mean.encoded);
  }

  void add_momentum(Piece piece, size_t count) {
    float values[kPieceElements];
    const std::span<float> momentum(values, count);
    momentum_(piece, momentum);
    result_.effects.momentum_squares += sum_of_squares(momentum);
    for (size_t i = 0; i < parts_.size(); ++i)
      result_.effects.parts[i].momentum += sum_of_products(row(i, count), momentum);
  }

  void add_up(std::span<float> sum) {
    for (size_t i = 0; i < parts_.size(); ++i) {
      if (factors_[i] == 0) continue;
      add_scaled(row(i, sum.size()).data(), int64_t(sum.size()), factors_[i], sum.data());
    }
    if (!momentum_) return;
    result_.effects.mean_squares += sum_of_squares(sum);
    for (size_t i = 0; i < parts_.size(); ++i) {
      const double product = sum_of_products(row(i, sum.size()), sum);
      result_.effects.parts[i].mean += double(factors_[i]) * product;
    }
  }

  void trim(std::span<float> sum) {
    std::vector<std::span<float>> rows;
    std::vector<float> factors;
    for (size_t i = 0; i < parts_.size(); ++i) {
      if (factors_[i] == 0) continue;
      rows.push_back(row(i, sum.size()));
      factors.push_back(factors_[i]);
    }
    float memory[kPieceElements];
    const std::span<float> weights(memory, sum.size());
    trimmed_sum(rows, factors, trimmed_count_, sum, weights);
    for (size_t k = 0; k < sum.size(); ++k) sum[k] = sum[k] / weights[k];
    if (!momentum_) return;
    result_.effects.mean_squares += sum_of_squares(sum);
    for (size_t k = 0; k < sum.size(); ++k) weights[k] = sum[k] / weights[k];
    for (size_t i = 0; i < parts_.size(); ++i) {
      if (factors_[i] == 0) continue;
      result_.effects.parts[i].mean += sum_of_products(row(i, sum.size()), weights);
    }
  }

  const Parts parts_;
  const int64_t element_count_;
  const CodecPair codecs_;
  const ReadMomentum& momentum_;
  std::vector<float> rows_;     // The parts' numbers in a piece.
  std::vector<float> factors_;  // Of the parts: their share of the weight, shortened; 0: not in it.
  int64_t trimmed_count_ = 0;
  ChunkMean result_;
};

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

int64_t MeanRule::trimmed_count(int64_t voices) const {
  if (trim_share <= 0 || voices < 3) return 0;
  return std::clamp<int64_t>(int64_t(trim_share * double(voices)), 1, (voices - 1) / 2);
}

ChunkMean mean_of(Parts parts, int64_t element_count, const CodecPair& codecs, const MeanRule& rule,
                  const ReadMomentum& momentum) {
  CHECK(!parts.empty());
  return MeanMaker(parts, element_count, codecs, rule, momentum).make();
}

}  // namespace outer
