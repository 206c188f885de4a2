#include "model/transformer.h"

#include <algorithm>
#include <cmath>

#include "model/pass.h"

namespace model {

using backend::Tensor;

namespace {

// Row t: cos(t * base^(-2j/D)) for j < D/2, then the sines.
std::vector<float> make_rope_table(const ModelConfig& c) {
  const int64_t half = c.head_size / 2;
  std::vector<float> table(size_t(c.sequence_length * c.head_size));
  for (int64_t t = 0; t < c.sequence_length; ++t) {
    float* row = table.data() + t * c.head_size;
    for (int64_t j = 0; j < half; ++j) {
      const double angle =
          double(t) * std::pow(c.rope_base, -2.0 * double(j) / double(c.head_size));
      row[j] = float(std::cos(angle));
      row[half + j] = float(std::sin(angle));
    }
  }
  return table;
}

// How many targets count. Token ids come from files, and an id beyond the vocabulary would read
// foreign memory.
int64_t check_and_count(const HostBatch& batch, const ModelConfig& c) {
  const auto check = [&](const char* what, int32_t id, int32_t minimum) {
    if (id < minimum || id >= c.vocabulary) {
      throw base::bad_input(fmt::format("batch: {} {} is outside the model's vocabulary of {}",
                                        what, id, c.vocabulary),
                            "Was the data prepared with another tokenizer?");
    }
  };
  int64_t count = 0;
  for (int32_t token : batch.tokens) check("token", token, 0);
  for (int32_t target : batch.targets) {
    check("target", target, -1);
    count += target >= 0;
  }
  return count;
}

}  // namespace

struct Transformer::State {
  const ModelConfig config;
  const TransformerOptions options;
  shard::Parameters& parameters;
  backend::Backend& backend;
  const Activations activations;
  const int64_t activation_bytes;
  int64_t counted_targets = 0;  // Since the last take_losses().

  backend::Device& device() const { return *backend.device; }
  backend::Stream& stream() const { return device().compute_stream(); }
  Pass pass() const { return {config, options, parameters, *backend.ops, stream(), activations}; }

  void upload(const Tensor& target, const void* source) const {
    device().copy(target.data, source, target.byte_count(), stream());
  }
  void upload(const HostBatch& batch) const;
  double download_sum(const Tensor& values) const;
};

void Transformer::State::upload(const HostBatch& batch) const {
  const size_t token_count = size_t(pass().token_count());
  CHECK(batch.tokens.size() == token_count);
  CHECK(batch.targets.size() == token_count);
  CHECK(batch.document_starts.size() == token_count);
  upload(activations.tokens, batch.tokens.data());
  upload(activations.targets, batch.targets.data());
  upload(activations.document_starts, batch.document_starts.data());
}

double Transformer::State::download_sum(const Tensor& values) const {
  std::vector<float> host(size_t(values.element_count()));
  device().copy(host.data(), values.data, values.byte_count(), stream());
  device().synchronize(stream());
  double sum = 0;
  for (float value : host) sum += double(value);
  return sum;
}

Transformer::Transformer(const ModelConfig& config, const TransformerOptions& options,
                         shard::Parameters& parameters, backend::Backend& backend)
    : state_(new State{.config = config,
                       .options = options,
                       .parameters = parameters,
                       .backend = backend,
                       .activations = allocate_activations(config, options, *backend.device),
                       .activation_bytes = planned_activation_bytes(
                           config, options, backend.device->compute_dtype())}) {
  CHECK(options.rows >= 1 && options.head_chunk_tokens >= 1);
  const std::vector<float> table = make_rope_table(config);
  state_->upload(state_->activations.rope_table, table.data());
  state_->device().synchronize(state_->stream());
}

Transformer::~Transformer() = default;

void Transformer::forward_backward(const HostBatch& batch, float gradient_scale) {
  const Pass pass = state_->pass();
  const int64_t head = pass.head_unit();
  state_->counted_targets += check_and_count(batch, state_->config);
  state_->upload(batch);

  forward_blocks(pass);
  state_->parameters.gather(head);
  normalize_output(pass);
  differentiate_loss(pass, gradient_scale);
  state_->parameters.release(head);
  state_->parameters.reduce(head);
  backward_blocks(pass);

  const Activations& a = state_->activations;
  pass.ops.add({.out = a.loss_sum, .in = a.loss}, pass.stream);
  pass.ops.add({.out = a.z_loss_sum, .in = a.z_loss}, pass.stream);
}

LossSums Transformer::take_losses() {
  const Pass pass = state_->pass();
  const Activations& a = state_->activations;
  const LossSums sums{.loss = state_->download_sum(a.loss_sum),
                      .z_loss = state_->download_sum(a.z_loss_sum),
                      .count = state_->counted_targets};
  pass.ops.zero(a.loss_sum, pass.stream);
  pass.ops.zero(a.z_loss_sum, pass.stream);
  state_->counted_targets = 0;
  return sums;
}

LossSums Transformer::evaluate(const HostBatch& batch) {
  const Pass pass = state_->pass();
  const int64_t count = check_and_count(batch, state_->config);
  state_->upload(batch);

  forward_blocks(pass);
  state_->parameters.gather(pass.head_unit());
  normalize_output(pass);
  evaluate_loss(pass);
  state_->parameters.release(pass.head_unit());
  return {.loss = state_->download_sum(state_->activations.loss),
          .z_loss = state_->download_sum(state_->activations.z_loss),
          .count = count};
}

void Transformer::next_logits(std::span<const int32_t> tokens, std::span<float> logits) {
  const Pass pass = state_->pass();
  CHECK(!tokens.empty() && int64_t(tokens.size()) <= state_->config.sequence_length);
  CHECK(int64_t(logits.size()) == state_->config.vocabulary);
  // The tokens stand at the start of row 0; what follows them cannot be seen by them.
  std::vector<int32_t> row(size_t(pass.token_count()), 0);
  std::copy(tokens.begin(), tokens.end(), row.begin());
  const std::vector<int32_t> none(row.size(), -1);
  const std::vector<int32_t> starts(row.size(), 0);
  const HostBatch batch{.tokens = row, .targets = none, .document_starts = starts};
  check_and_count(batch, state_->config);
  state_->upload(batch);

  forward_blocks(pass);
  state_->parameters.gather(pass.head_unit());
  normalize_output(pass);
  compute_next_logits(pass, int64_t(tokens.size()) - 1);
  state_->parameters.release(pass.head_unit());
  const Tensor& result = state_->activations.next_logits;
  state_->device().copy(logits.data(), result.data, result.byte_count(), state_->stream());
  state_->device().synchronize(state_->stream());
}

int64_t Transformer::activation_bytes() const {
  return state_->activation_bytes;
}

}  // namespace model
