#include "model/transformer.h"

#include <algorithm>
#include <array>

#include "model/pass.h"

namespace model {

using backend::Tensor;

namespace {

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
  // A micro-batch on its way to the device, in memory that the device copies from by itself. `done`
  // is recorded behind everything that the micro-batch causes.
  struct Slot {
    std::unique_ptr<backend::Buffer> memory;
    std::unique_ptr<backend::Event> done;
  };

  const ModelConfig config;
  const TransformerOptions options;
  shard::Parameters& parameters;
  backend::Backend& backend;
  const Activations activations;
  const int64_t activation_bytes;
  SideStream side{*backend.device, options.weight_gradient_stream};
  std::array<Slot, 2> slots = {};
  size_t slot_in_use = 0;
  std::unique_ptr<backend::Buffer> totals_memory = nullptr;
  Documents documents = {};     // Of the micro-batch in work.
  int64_t counted_targets = 0;  // Since the last take_losses().

  backend::Device& device() const { return *backend.device; }
  backend::Stream& stream() const { return device().compute_stream(); }
  Pass pass() {
    return {config, options, parameters, *backend.ops, stream(), side, activations, documents};
  }
  int64_t token_count() const { return options.rows * config.sequence_length; }

  void allocate_host_memory();
  void begin_batch(const HostBatch& batch);
  void end_batch() { slots[slot_in_use].done = device().record(stream()); }
  LossSums download_totals(const Tensor& loss, const Tensor& z_loss, int64_t count) const;
};

void Transformer::State::allocate_host_memory() {
  for (Slot& slot : slots) {
    slot.memory = device().allocate_host(3 * token_count() * int64_t{sizeof(int32_t)}, "batches");
  }
  totals_memory = device().allocate_host(activations.loss_totals.byte_count(), "loss totals");
}

// Waits until the device is done with the micro-batch before the last one. So the host is never
// more than two ahead, and the device never without work.
void Transformer::State::begin_batch(const HostBatch& batch) {
  const auto count = size_t(token_count());
  CHECK(batch.tokens.size() == count && batch.targets.size() == count);
  CHECK(batch.document_starts.size() == count);
  slot_in_use = (slot_in_use + 1) % slots.size();
  Slot& slot = slots[slot_in_use];
  if (slot.done) device().synchronize(*slot.done);

  auto* staged = static_cast<int32_t*>(slot.memory->data());
  const auto upload = [&](const Tensor& target, std::span<const int32_t> values) {
    std::ranges::copy(values, staged);
    device().copy(target.data, staged, target.byte_count(), stream());
    staged += count;
  };
  upload(activations.tokens, batch.tokens);
  upload(activations.targets, batch.targets);
  upload(activations.document_starts, batch.document_starts);

  documents = documents_of(batch.document_starts, config.sequence_length);
}

Documents documents_of(std::span<const int32_t> document_starts, int64_t sequence_length) {
  Documents documents;
  int64_t begin = 0;  // Of the document that position i is in.
  for (int64_t i = 0; i < int64_t(document_starts.size()); ++i) {
    if (document_starts[size_t(i)] == i % sequence_length) {
      begin = i;
      ++documents.count;
    }
    documents.longest = std::max(documents.longest, i - begin + 1);
  }
  return documents;
}

// Waits for the device.
LossSums Transformer::State::download_totals(const Tensor& loss, const Tensor& z_loss,
                                             int64_t count) const {
  const Tensor& totals = activations.loss_totals;
  backend.ops->sum({.out = totals.slice(0, {1}), .in = loss}, stream());
  backend.ops->sum({.out = totals.slice(1, {1}), .in = z_loss}, stream());
  const auto* host = static_cast<const float*>(totals_memory->data());
  device().copy(totals_memory->data(), totals.data, totals.byte_count(), stream());
  device().synchronize(stream());
  return {.loss = double(host[0]), .z_loss = double(host[1]), .count = count};
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
  state_->allocate_host_memory();
  const std::vector<float> table = make_rope_table(config);
  const Tensor& target = state_->activations.rope_table;
  state_->device().copy(target.data, table.data(), target.byte_count(), state_->stream());
  state_->device().synchronize(state_->stream());
}

Transformer::~Transformer() = default;

void Transformer::forward_backward(const HostBatch& batch, float gradient_scale) {
  state_->counted_targets += check_and_count(batch, state_->config);
  state_->begin_batch(batch);
  const Pass pass = state_->pass();
  const int64_t head = pass.head_unit();

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
  state_->end_batch();
}

LossSums Transformer::take_losses() {
  const Pass pass = state_->pass();
  const Activations& a = state_->activations;
  const LossSums sums = state_->download_totals(a.loss_sum, a.z_loss_sum, state_->counted_targets);
  pass.ops.zero(a.loss_sum, pass.stream);
  pass.ops.zero(a.z_loss_sum, pass.stream);
  state_->counted_targets = 0;
  return sums;
}

LossSums Transformer::evaluate(const HostBatch& batch) {
  const int64_t count = check_and_count(batch, state_->config);
  state_->begin_batch(batch);
  const Pass pass = state_->pass();

  forward_blocks(pass);
  state_->parameters.gather(pass.head_unit());
  normalize_output(pass);
  evaluate_loss(pass);
  state_->parameters.release(pass.head_unit());
  state_->end_batch();
  return state_->download_totals(state_->activations.loss, state_->activations.z_loss, count);
}

void Transformer::next_logits(std::span<const int32_t> tokens, std::span<float> logits) {
  CHECK(!tokens.empty() && int64_t(tokens.size()) <= state_->config.sequence_length);
  CHECK(int64_t(logits.size()) == state_->config.vocabulary);
  // The tokens stand at the start of row 0; what follows them cannot be seen by them.
  std::vector<int32_t> row(size_t(state_->token_count()), 0);
  std::copy(tokens.begin(), tokens.end(), row.begin());
  const std::vector<int32_t> none(row.size(), -1);
  const std::vector<int32_t> starts(row.size(), 0);
  const HostBatch batch{.tokens = row, .targets = none, .document_starts = starts};
  check_and_count(batch, state_->config);
  state_->begin_batch(batch);
  const Pass pass = state_->pass();

  forward_blocks(pass);
  state_->parameters.gather(pass.head_unit());
  normalize_output(pass);
  compute_next_logits(pass, int64_t(tokens.size()) - 1);
  state_->parameters.release(pass.head_unit());
  state_->end_batch();
  const Tensor& result = state_->activations.next_logits;
  state_->device().copy(logits.data(), result.data, result.byte_count(), state_->stream());
  state_->device().synchronize(state_->stream());
}

int64_t Transformer::activation_bytes() const {
  return state_->activation_bytes;
}

}  // namespace model
