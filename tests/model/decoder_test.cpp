// Decoding against whole rows: the same logits at every position, however a sequence came to be.
// The reference is Transformer::next_logits, which knows no cache.
#include "model/decoder.h"

#include "model/fixture.h"

namespace {

using model::Decoder;
using model_test::Rig;
using model_test::small_config;

// fp32: sums are made in another order. The largest logits are some units.
constexpr double kLogitTolerance = 2e-5;

std::vector<int32_t> random_tokens(int64_t count, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(int32_t(generator() % uint64_t(small_config().vocabulary)));
  return tokens;
}

// A decoder, and what its sequences should have.
class Desk {
 public:
  Desk(const model::ModelConfig& config, const model::DecoderOptions& options)
      : rig_(config, {.rows = 1}), decoder_(config, options, rig_.parameters, *rig_.backend) {
    sequences_.resize(size_t(options.sequences));
  }

  Decoder& decoder() { return decoder_; }
  Rig& rig() { return rig_; }

  // Appends to the decoder and to what should be there; compares all logits that come, and their
  // places with those that were asked for.
  void append(const std::vector<std::pair<int64_t, std::vector<int32_t>>>& growth,
              Decoder::Logits logits = Decoder::Logits::kAll) {
    std::vector<Decoder::Piece> pieces;
    std::vector<std::pair<int64_t, int64_t>> wanted, found;
    std::vector<std::vector<float>> rows;
    for (const auto& [sequence, tokens] : growth) {
      pieces.push_back({.sequence = sequence, .tokens = tokens, .logits = logits});
      std::vector<int32_t>& all = sequences_[size_t(sequence)];
      for (size_t i = 0; i < tokens.size(); ++i) {
        all.push_back(tokens[i]);
        const bool is_last = i + 1 == tokens.size();
        if (logits == Decoder::Logits::kAll || (logits == Decoder::Logits::kLast && is_last))
          wanted.emplace_back(sequence, int64_t(all.size()) - 1);
      }
    }
    decoder_.append(pieces, [&](int64_t sequence, int64_t position, std::span<const float> row) {
      found.emplace_back(sequence, position);
      rows.emplace_back(row.begin(), row.end());
    });
    REQUIRE(found == wanted);
    for (size_t i = 0; i < found.size(); ++i) {
      INFO("sequence " << found[i].first << " position " << found[i].second);
      require_logits(found[i].first, found[i].second, rows[i]);
    }
    for (const auto& [sequence, tokens] : growth)
      REQUIRE(decoder_.length(sequence) == int64_t(sequences_[size_t(sequence)].size()));
  }

  void truncate(int64_t sequence, int64_t length) {
    decoder_.truncate(sequence, length);
    sequences_[size_t(sequence)].resize(size_t(length));
  }

 private:
  void require_logits(int64_t sequence, int64_t position, std::span<const float> row) {
    std::vector<float> expected(row.size());
    rig_.transformer->next_logits(
        std::span(sequences_[size_t(sequence)]).first(size_t(position) + 1), expected);
    const auto distance = model_test::relative_distance(row, expected);
    REQUIRE(distance.maximum < kLogitTolerance);
  }

  Rig rig_;
  Decoder decoder_;
  std::vector<std::vector<int32_t>> sequences_;
};

}  // namespace

TEST_CASE("decoder: token by token, and every length of prompt up to the context") {
  const model::ModelConfig config = small_config();
  Desk desk(config, {});
  const std::vector<int32_t> tokens = random_tokens(config.sequence_length, 1);
  for (const int32_t token : tokens) desk.append({{0, {token}}});
  for (int64_t length = 1; length <= config.sequence_length; ++length) {
    desk.truncate(0, 0);
    desk.append({{0, {tokens.begin(), tokens.begin() + length}}});
    if (length < config.sequence_length) desk.append({{0, {tokens[size_t(length)]}}});
  }
}

TEST_CASE("decoder: prompts that go in parts, of any size of batch") {
  const model::ModelConfig config = small_config();
  for (const int64_t batch_rows : {1, 2, 3, 5, 8, 100}) {
    INFO("batch of " << batch_rows);
    Desk desk(config, {.batch_rows = batch_rows});
    desk.append({{0, random_tokens(11, 2)}});
    desk.append({{0, random_tokens(5, 3)}});
  }
}

TEST_CASE("decoder: sequences of different lengths side by side") {
  Desk desk(small_config(), {.sequences = 3, .batch_rows = 7});
  desk.append({{1, random_tokens(9, 4)}});
  desk.append({{0, random_tokens(2, 5)}, {1, random_tokens(1, 6)}});
  desk.append({{2, random_tokens(12, 7)}, {0, random_tokens(1, 8)}, {1, random_tokens(3, 9)}});
  for (uint64_t step = 0; step < 3; ++step) {
    desk.append({{0, random_tokens(1, 10 + step)},
                 {1, random_tokens(1, 20 + step)},
                 {2, random_tokens(1, 30 + step)}});
  }
}

TEST_CASE("decoder: what is truncated leaves no trace") {
  Desk desk(small_config(), {.sequences = 2});
  desk.append({{0, random_tokens(14, 1)}, {1, random_tokens(4, 2)}});
  desk.truncate(0, 5);
  desk.append({{0, random_tokens(3, 3)}});
  desk.truncate(0, 0);
  desk.append({{0, random_tokens(6, 4)}, {1, random_tokens(1, 5)}});
}

TEST_CASE("decoder: logits come where they are asked for") {
  Desk desk(small_config(), {.sequences = 2, .batch_rows = 4});
  desk.append({{0, random_tokens(6, 1)}, {1, random_tokens(3, 2)}}, Decoder::Logits::kLast);
  desk.append({{0, random_tokens(4, 3)}}, Decoder::Logits::kNone);
  desk.append({{1, {}}, {0, random_tokens(1, 4)}}, Decoder::Logits::kLast);
}

TEST_CASE("decoder: heads in one group, as many key heads as heads, and stretched waves") {
  for (const int64_t kv_heads : {1, 4}) {
    for (const char* const kind : {"none", "linear", "llama3"}) {
      model::ModelConfig config = small_config();
      config.kv_heads = kv_heads;
      config.rope_scaling = {.kind = kind, .factor = 4, .original_sequence_length = 8};
      INFO("kv heads " << kv_heads << " scaling " << kind);
      Desk desk(config, {.batch_rows = 5});
      desk.append({{0, random_tokens(9, 1)}});
      desk.append({{0, random_tokens(1, 2)}});
    }
  }
}

// Positions count from the start: a shorter context is only less memory.
TEST_CASE("decoder: a context shorter than the model's rows, and its end") {
  Desk desk(small_config(), {.context = 6});
  REQUIRE(desk.decoder().context() == 6);
  desk.append({{0, random_tokens(6, 1)}});
  REQUIRE(desk.decoder().length(0) == desk.decoder().context());
  desk.truncate(0, 1);
  desk.append({{0, random_tokens(5, 2)}});
}

TEST_CASE("decoder: a token outside the vocabulary is refused, and nothing is appended") {
  Desk desk(small_config(), {.sequences = 2});
  desk.append({{0, random_tokens(3, 1)}});
  for (const int32_t wrong : {-1, 37, 1 << 30}) {
    const std::vector<int32_t> good{1, 2}, bad{3, wrong};
    const Decoder::Piece pieces[] = {{.sequence = 0, .tokens = good},
                                     {.sequence = 1, .tokens = bad}};
    REQUIRE_THROWS_AS(desk.decoder().append(pieces, [](auto, auto, auto) {}), base::Error);
    REQUIRE(desk.decoder().length(0) == 3);
    REQUIRE(desk.decoder().length(1) == 0);
  }
  desk.append({{0, random_tokens(2, 2)}});
}

TEST_CASE("decoder: its memory is what is said, and nothing more comes later") {
  const model::ModelConfig config = small_config();
  const model::DecoderOptions options{.sequences = 3, .context = 12};
  // Keys and values of 3 blocks, 3 sequences, 2 heads of 10 at 12 positions, in 4 bytes.
  REQUIRE(model::planned_cache_bytes(config, options, backend::DType::kFloat32) ==
          2 * 3 * 3 * 2 * 10 * 12 * 4);
  Desk desk(config, options);
  desk.rig().backend->device->set_steady(true);
  desk.append({{0, random_tokens(12, 1)}, {2, random_tokens(3, 2)}});
  desk.append({{2, random_tokens(1, 3)}});
}
