// The transformer: loss and gradients of a batch, evaluation, and next-token logits. One object per
// rank; all buffers are allocated at construction.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/config.h"
#include "shard/parameters.h"

namespace model {

// What the forward pass does not keep for the backward, in rising order: each policy drops what the
// ones before it drop, and needs less memory and more time.
enum class Recompute {
  kNone,    // It keeps everything.
  kCheap,   // Norm outputs and the SwiGLU output are made again, inside the backward's own kernels.
  kGateUp,  // The gate and up product too: the largest tensor of a block, for a product more.
  kFull,    // All but each block's input: the block's forward runs again.
};

struct TransformerOptions {
  int64_t rows = 1;  // B: rows of a micro-batch.
  Recompute recompute = Recompute::kCheap;
  int64_t head_chunk_tokens = 1024;  // The head's logits exist for at most so many tokens at once.
  // The products that make the gradients of blocks' weights run on the device's side stream, beside
  // the rest of the backward. The same bits, for one buffer (N, C) more.
  bool weight_gradient_stream = false;
};

// One micro-batch in host memory, N = rows * T entries each. targets: -1 is not counted.
// document_starts: see backend::AttentionForwardArgs.
struct HostBatch {
  std::span<const int32_t> tokens;
  std::span<const int32_t> targets;
  std::span<const int32_t> document_starts;
};

// Sums over the counted targets; divide by `count` for means.
struct LossSums {
  double loss = 0;    // Cross-entropy, nats.
  double z_loss = 0;  // Already weighted.
  int64_t count = 0;
};

class Transformer {
 public:
  // Arguments outlive the object.
  Transformer(const ModelConfig& config, const TransformerOptions& options,
              shard::Parameters& parameters, backend::Backend& backend);
  ~Transformer();
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  // Adds gradient_scale * d(sum of losses + z_losses) / d parameters to the gradients. With
  // gradient_scale = 1 / (counted targets of the whole batch), several calls accumulate to the
  // gradient of the mean. Sums stay on the device until take_losses().
  // The batch's memory may be reused after the call. Returns when the work is queued; at most two
  // micro-batches are under way, beyond that it waits for the first of them. Throws bad_input for
  // ids outside the vocabulary, here and below.
  void forward_backward(const HostBatch& batch, float gradient_scale);
  // The loss sums of all calls since the last take_losses(). Waits for the device: once per step.
  LossSums take_losses();

  // Without gradients, and apart from take_losses(). Waits for the device.
  LossSums evaluate(const HostBatch& batch);

  // Logits (V) after the last token, all tokens one document. 1 <= tokens.size() <= T. Computes
  // whole micro-batches: make the object with rows = 1 for it. Waits for the device.
  void next_logits(std::span<const int32_t> tokens, std::span<float> logits);

  int64_t activation_bytes() const;  // Device memory of this object's buffers.

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Device bytes of a Transformer's buffers, without making one.
int64_t planned_activation_bytes(const ModelConfig& config, const TransformerOptions& options,
                                 backend::DType compute_dtype);

}  // namespace model
