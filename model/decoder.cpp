#include "model/decoder.h"

#include <algorithm>
#include <bit>
#include <map>
#include <vector>

#include "model/pass.h"

namespace model {

using backend::DType;
using backend::Shape;
using backend::Tensor;

namespace {

// Logits exist for so many tokens at a time, in both types.
constexpr int64_t kLogitRows = 64;

// One token of a batch.
struct BatchRow {
  int32_t sequence, position, token;
  bool wants_logits;
};

// Batches have few different sizes: a GPU's products are planned for each.
int64_t padded_rows(int64_t rows, int64_t batch_rows) {
  return std::min(batch_rows, int64_t(std::bit_ceil(uint64_t(rows))));
}

ModelConfig with_context(ModelConfig config, int64_t context) {
  CHECK(context >= 0 && context <= config.sequence_length);
  if (context > 0) config.sequence_length = context;
  return config;
}

// A batch of tokens is one row as long as it has tokens.
ModelConfig with_batch(ModelConfig config, int64_t batch_rows) {
  config.sequence_length = batch_rows;
  return config;
}

Shape cache_shape(const ModelConfig& c, int64_t sequences) {
  return {sequences, c.kv_heads, c.sequence_length, c.head_size};
}

}  // namespace

struct Decoder::State {
  const ModelConfig config;  // Its sequence_length is the context.
  const ModelConfig batch_config;
  const DecoderOptions options;
  const TransformerOptions transformer_options;
  shard::Parameters& parameters;
  backend::Backend& backend;
  Activations activations;
  std::map<int64_t, Activations> views = {};  // By their rows.
  std::vector<std::unique_ptr<backend::Buffer>> storage = {};
  PassCache cache = {};
  Tensor logits = {};  // (kLogitRows, V) fp32
  std::unique_ptr<backend::Buffer> host_batch = nullptr, host_logits = nullptr;
  std::vector<int64_t> lengths;
  SideStream side{*backend.device, false};

  backend::Device& device() const { return *backend.device; }
  backend::Stream& stream() const { return device().compute_stream(); }

  Tensor allocate(DType dtype, const Shape& shape, const char* label);
  void allocate_all();
  std::vector<BatchRow> rows_of(std::span<const Piece> pieces) const;
  void upload(std::span<const BatchRow> rows, int64_t padded);
  void compute(std::span<const BatchRow> rows, const OnLogits& on_logits);
  void deliver(const Pass& pass, std::span<const BatchRow> rows, const OnLogits& on_logits);
};

Tensor Decoder::State::allocate(DType dtype, const Shape& shape, const char* label) {
  storage.push_back(
      device().allocate(shape.element_count() * backend::bytes_per_element(dtype), label));
  return storage.back()->tensor(dtype, shape);
}

void Decoder::State::allocate_all() {
  const DType compute_dtype = device().compute_dtype();
  for (int64_t i = 0; i < config.layers; ++i) {
    const Shape shape = cache_shape(config, options.sequences);
    cache.keys.push_back(allocate(compute_dtype, shape, "decoder: keys"));
    cache.values.push_back(allocate(compute_dtype, shape, "decoder: values"));
  }
  cache.sequences = allocate(DType::kInt32, {options.batch_rows}, "decoder: sequences");
  cache.positions = allocate(DType::kInt32, {options.batch_rows}, "decoder: positions");
  logits = allocate(DType::kFloat32, {kLogitRows, config.vocabulary}, "decoder: logits");
  host_logits = device().allocate_host(logits.byte_count(), "decoder: logits");
  host_batch =
      device().allocate_host(3 * options.batch_rows * int64_t{sizeof(int32_t)}, "decoder: batch");

  activations.rope_table =
      allocate(DType::kFloat32, {config.sequence_length, config.head_size}, "decoder: rope table");
  const std::vector<float> table = make_rope_table(config);
  device().copy(activations.rope_table.data, table.data(), activations.rope_table.byte_count(),
                stream());
  device().synchronize(stream());
  for (int64_t rows = 1;; rows *= 2) {
    const int64_t padded = padded_rows(std::min(rows, options.batch_rows), options.batch_rows);
    views.emplace(padded, first_rows(activations, padded));
    if (padded == options.batch_rows) break;
  }
}

std::vector<BatchRow> Decoder::State::rows_of(std::span<const Piece> pieces) const {
  std::vector<BatchRow> rows;
  for (const Piece& piece : pieces) {
    CHECK(piece.sequence >= 0 && piece.sequence < options.sequences);
    int64_t position = lengths[size_t(piece.sequence)];
    CHECK(position + int64_t(piece.tokens.size()) <= config.sequence_length);
    for (const int32_t token : piece.tokens) {
      if (token < 0 || token >= config.vocabulary) {
        throw base::bad_input(fmt::format("token {} is outside the model's vocabulary of {}", token,
                                          config.vocabulary));
      }
      rows.push_back(
          {int32_t(piece.sequence), int32_t(position++), token, piece.logits == Logits::kAll});
    }
    if (!piece.tokens.empty() && piece.logits == Logits::kLast) rows.back().wants_logits = true;
  }
  return rows;
}

void Decoder::State::upload(std::span<const BatchRow> rows, int64_t padded) {
  auto* const tokens = static_cast<int32_t*>(host_batch->data());
  int32_t* const sequences = tokens + padded;
  int32_t* const positions = sequences + padded;
  for (int64_t i = 0; i < padded; ++i) {
    const BatchRow row = i < int64_t(rows.size()) ? rows[size_t(i)] : BatchRow{-1, 0, 0, false};
    tokens[i] = row.token;
    sequences[i] = row.sequence;
    positions[i] = row.position;
  }
  const auto copy = [&](const Tensor& target, const int32_t* values) {
    device().copy(target.data, values, padded * int64_t{sizeof(int32_t)}, stream());
  };
  copy(activations.tokens, tokens);
  copy(cache.sequences, sequences);
  copy(cache.positions, positions);
}

// A batch. The host waits for it, so that its memory can be used for the next.
void Decoder::State::compute(std::span<const BatchRow> rows, const OnLogits& on_logits) {
  const int64_t padded = padded_rows(int64_t(rows.size()), options.batch_rows);
  upload(rows, padded);
  const PassCache batch_cache{cache.keys, cache.values, cache.sequences.slice(0, {padded}),
                              cache.positions.slice(0, {padded})};
  const Pass pass{.config = batch_config,
                  .options = transformer_options,
                  .parameters = parameters,
                  .ops = *backend.ops,
                  .stream = stream(),
                  .side = side,
                  .activations = views.at(padded),
                  .documents = {},
                  .cache = &batch_cache};
  forward_blocks(pass);
  parameters.gather(pass.head_unit());
  if (std::ranges::any_of(rows, &BatchRow::wants_logits)) {
    normalize_output(pass);
    deliver(pass, rows, on_logits);
  }
  parameters.release(pass.head_unit());
  device().synchronize(stream());
}

// Neighbours that want logits get them from one product.
void Decoder::State::deliver(const Pass& pass, std::span<const BatchRow> rows,
                             const OnLogits& on_logits) {
  const int64_t V = config.vocabulary;
  const auto* const host = static_cast<const float*>(host_logits->data());
  for (size_t begin = 0; begin < rows.size();) {
    size_t end = begin;
    while (end < rows.size() && rows[end].wants_logits && end - begin < size_t(kLogitRows)) ++end;
    if (end == begin) {
      ++begin;
      continue;
    }
    const int64_t count = int64_t(end - begin);
    const Tensor result = logits.slice(0, {count, V});
    backend.ops->cast({.out = result, .in = compute_logits(pass, int64_t(begin), count)}, stream());
    device().copy(host_logits->data(), result.data, result.byte_count(), stream());
    device().synchronize(stream());
    for (int64_t i = 0; i < count; ++i) {
      const BatchRow& row = rows[begin + size_t(i)];
      on_logits(row.sequence, row.position, {host + i * V, size_t(V)});
    }
    begin = end;
  }
}

Decoder::Decoder(const ModelConfig& config, const DecoderOptions& options,
                 shard::Parameters& parameters, backend::Backend& backend) {
  CHECK(options.sequences >= 1 && options.batch_rows >= 1);
  const ModelConfig batch_config = with_batch(config, options.batch_rows);
  const TransformerOptions transformer_options{.rows = 1, .head_chunk_tokens = kLogitRows};
  state_.reset(new State{.config = with_context(config, options.context),
                         .batch_config = batch_config,
                         .options = options,
                         .transformer_options = transformer_options,
                         .parameters = parameters,
                         .backend = backend,
                         .activations = allocate_activations(batch_config, transformer_options,
                                                             *backend.device, Purpose::kDecoding),
                         .lengths = std::vector<int64_t>(size_t(options.sequences), 0)});
  state_->allocate_all();
}

Decoder::~Decoder() = default;

int64_t Decoder::context() const {
  return state_->config.sequence_length;
}

int64_t Decoder::length(int64_t sequence) const {
  return state_->lengths.at(size_t(sequence));
}

void Decoder::truncate(int64_t sequence, int64_t length) {
  CHECK(length >= 0 && length <= this->length(sequence));
  state_->lengths[size_t(sequence)] = length;
}

void Decoder::append(std::span<const Piece> pieces, const OnLogits& on_logits) {
  const std::vector<BatchRow> rows = state_->rows_of(pieces);
  for (const Piece& piece : pieces)
    state_->lengths[size_t(piece.sequence)] += int64_t(piece.tokens.size());
  const auto batch_rows = size_t(state_->options.batch_rows);
  for (size_t begin = 0; begin < rows.size(); begin += batch_rows) {
    state_->compute(std::span(rows).subspan(begin, std::min(batch_rows, rows.size() - begin)),
                    on_logits);
  }
}

int64_t planned_cache_bytes(const ModelConfig& config, const DecoderOptions& options,
                            DType compute_dtype) {
  const ModelConfig c = with_context(config, options.context);
  return 2 * c.layers * cache_shape(c, options.sequences).element_count() *
         backend::bytes_per_element(compute_dtype);
}

}  // namespace model
