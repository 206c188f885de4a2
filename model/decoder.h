// Decoding: sequences that grow, with the keys and values of what they have already been given. A
// token then costs one row of the model and not a whole row of the context. The transformer is that
// of forward.cpp; only attention differs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "backend/backend.h"
#include "model/config.h"
#include "shard/parameters.h"

namespace model {

struct DecoderOptions {
  int64_t sequences = 1;     // S: how many exist at a time.
  int64_t context = 0;       // T: tokens that a sequence may have. 0: as the model's rows.
  int64_t batch_rows = 256;  // Tokens that are computed together: a longer prompt goes in parts.
};

class Decoder {
 public:
  // Arguments outlive the object. Allocates everything: see planned_cache_bytes().
  // REQUIRES: context <= the model's sequence_length.
  Decoder(const ModelConfig& config, const DecoderOptions& options, shard::Parameters& parameters,
          backend::Backend& backend);
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  int64_t context() const;
  // Tokens that the sequence has now. All begin empty.
  int64_t length(int64_t sequence) const;
  // Forgets all but the first `length` tokens; what is kept is as if the rest had never been.
  void truncate(int64_t sequence, int64_t length);

  // Of which of its tokens a piece wants the logits of what follows.
  enum class Logits { kNone, kLast, kAll };
  // What a sequence grows by.
  struct Piece {
    int64_t sequence = 0;
    std::span<const int32_t> tokens = {};
    Logits logits = Logits::kLast;
  };
  // logits (V) of what follows the token at `position` of the sequence; valid during the call,
  // which uses neither the decoder nor its parameters.
  using OnLogits =
      std::function<void(int64_t sequence, int64_t position, std::span<const float> logits)>;
  // All pieces together, each of another sequence; on_logits in their order. Waits for the device.
  // Throws bad_input for ids outside the vocabulary, before anything is appended. REQUIRES: no
  // sequence grows beyond context(). What throws later (a lost device, on_logits) leaves sequences
  // that are to be truncated before they are used again.
  void append(std::span<const Piece> pieces, const OnLogits& on_logits);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Device bytes of the keys and values: 2 * L * S * T * K * D numbers.
int64_t planned_cache_bytes(const ModelConfig& config, const DecoderOptions& options,
                            backend::DType compute_dtype);

}  // namespace model
