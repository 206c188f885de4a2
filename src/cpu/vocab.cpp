// The two ends of the model, which know the vocabulary: embedding and cross-entropy.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/cpu_backend.h"
#include "cpu/vector_math.h"

namespace cpu {

using backend::CrossEntropyArgs;
using backend::EmbeddingBackwardArgs;
using backend::EmbeddingForwardArgs;
using backend::Stream;

namespace {

VECTOR_LOOP float max_of(const float* x, int64_t count) {
  float max = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : max)
  for (int64_t v = 0; v < count; ++v) max = x[v] > max ? x[v] : max;
  return max;
}

// Returns the sum of e^(x - max); leaves the terms in `terms`, which may be x.
VECTOR_LOOP float exp_sum(const float* x, float max, float* terms, int64_t count) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t v = 0; v < count; ++v) {
    const float term = exp_fast(x[v] - max);
    terms[v] = term;
    sum += term;
  }
  return sum;
}

VECTOR_LOOP float exp_sum(const float* x, float max, int64_t count) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t v = 0; v < count; ++v) sum += exp_fast(x[v] - max);
  return sum;
}

}  // namespace

void CpuOps::embedding_forward(const EmbeddingForwardArgs& args, Stream&) {
  const int64_t vocabulary = args.weight.shape[0], width = args.weight.shape[1];
  const int64_t rows = args.tokens.element_count();
  CHECK(args.out.element_count() == rows * width);
  const int32_t* tokens = args.tokens.as<int32_t>();
  const float* weight = args.weight.as<float>();
  float* out = args.out.as<float>();
  workers_.for_pieces(rows, rows_per_piece(width), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      CHECK(tokens[row] >= 0 && tokens[row] < vocabulary);
      std::copy_n(weight + tokens[row] * width, width, out + row * width);
    }
  });
}

// Cut by columns: every piece goes through all tokens in order, so that no two pieces write the
// same element.
void CpuOps::embedding_backward(const EmbeddingBackwardArgs& args, Stream&) {
  const int64_t vocabulary = args.weight_gradient.shape[0], width = args.weight_gradient.shape[1];
  const int64_t rows = args.tokens.element_count();
  CHECK(args.out_gradient.element_count() == rows * width);
  const int32_t* tokens = args.tokens.as<int32_t>();
  const float* dy = args.out_gradient.as<float>();
  float* weight_gradient = args.weight_gradient.as<float>();
  constexpr int64_t kPieceColumns = 64;
  workers_.for_pieces(width, kPieceColumns, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = 0; row < rows; ++row) {
      CHECK(tokens[row] >= 0 && tokens[row] < vocabulary);
      float* target = weight_gradient + tokens[row] * width;
      const float* source = dy + row * width;
#pragma omp simd
      for (int64_t c = begin; c < end; ++c) target[c] += source[c];
    }
  });
}

void CpuOps::cross_entropy(const CrossEntropyArgs& args, Stream&) {
  const int64_t rows = args.logits.shape[0], vocabulary = args.logits.shape[1];
  CHECK(args.targets.element_count() == rows && args.loss.element_count() == rows);
  CHECK(args.z_loss.element_count() == rows);
  const int32_t* targets = args.targets.as<int32_t>();
  float* loss = args.loss.as<float>();
  float* z_loss = args.z_loss.as<float>();
  workers_.for_pieces(rows, rows_per_piece(vocabulary), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      float* logits = args.logits.as<float>() + row * vocabulary;
      const int32_t target = targets[row];
      CHECK(target >= -1 && target < vocabulary);
      if (target < 0) {
        loss[row] = z_loss[row] = 0;
        if (args.compute_gradient) std::fill_n(logits, vocabulary, 0.0f);
        continue;
      }
      const float max = max_of(logits, vocabulary);
      const float target_logit = logits[target];
      z_loss[row] = args.z_weight * max * max;
      if (!args.compute_gradient) {
        loss[row] = std::log(exp_sum(logits, max, vocabulary)) + (max - target_logit);
        continue;
      }
      const int64_t first_max = std::find(logits, logits + vocabulary, max) - logits;
      const float sum = exp_sum(logits, max, logits, vocabulary);
      loss[row] = std::log(sum) + (max - target_logit);
      // A loss that is not finite has no gradient: with a NaN here the step is skipped.
      const float factor = std::isfinite(loss[row]) ? args.gradient_scale / sum
                                                    : std::numeric_limits<float>::quiet_NaN();
#pragma omp simd
      for (int64_t v = 0; v < vocabulary; ++v) logits[v] *= factor;
      logits[target] -= args.gradient_scale;
      // Among NaNs alone none is the largest; the whole row's gradient is NaN then.
      if (first_max < vocabulary)
        logits[first_max] += args.gradient_scale * 2.0f * args.z_weight * max;
    }
  });
}

}  // namespace cpu
