#include "outer/outer_state.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>

#include "outer/chunk_mean.h"
#include "outer/codec.h"
#include "outer/contribution.h"
#include "outer/fragment_record.h"
#include "outer/outer_step.h"
#include "outer/state_transfer.h"

namespace outer {

namespace {

void take(FragmentRecord& record, uint64_t version, StateSummary summary) {
  record.state = {.version = version, .digest = summary.digest};
  record.squares = std::move(summary.squares);
  record.pieces = std::move(summary.pieces);
}

class HostOuterState final : public OuterState {
 public:
  HostOuterState(const OuterConfig& config, const shard::Layout& layout, LocalParameters& local,
                 base::ThreadPool& pool, int64_t results_kept);

  int64_t fragment_count() const override { return int64_t(records_.size()); }
  int64_t chunk_count(int64_t fragment) const override { return record(fragment).chunk_count(); }
  int64_t block_count(int64_t fragment) const override { return record(fragment).block_count(); }

  net::Bytes contribution(int64_t fragment, int64_t chunk) override;
  base::Result<void> check_contribution(int64_t fragment, int64_t chunk,
                                        std::span<const std::byte> encoded) const override {
    return codec_->check(encoded, record(fragment).chunk(chunk).count);
  }
  base::Result<void> check_result(int64_t fragment, int64_t chunk,
                                  std::span<const std::byte> encoded) const override {
    return result_codec_->check(encoded, record(fragment).chunk(chunk).count);
  }
  base::Digest contribution_root(int64_t fragment) const override;
  Mean reduce(int64_t fragment, int64_t chunk, std::span<const Part> parts) override;
  std::optional<Mean> repeat(int64_t fragment, uint64_t round, int64_t chunk,
                             std::span<const Part> parts) override;
  std::optional<StateBlock> read_block(int64_t fragment, int64_t block) override {
    return outer::read_block(record(fragment), block);
  }
  base::Result<void> write_block(int64_t fragment, int64_t block,
                                 std::span<const std::byte> bytes) override {
    return outer::write_block(record(fragment), fragment, block, bytes);
  }
  Cut cut(int64_t fragment) const override {
    const FragmentRecord& r = record(fragment);
    return {.elements = r.element_count(),
            .chunk_elements = r.chunk_elements,
            .block_elements = kBlockElements};
  }
  std::optional<std::vector<std::byte>> digests(int64_t fragment, uint64_t version) override {
    return outer::digests(record(fragment), version);
  }
  base::Result<std::vector<int64_t>> wrong_blocks(int64_t fragment,
                                                  const net::FragmentState& expected,
                                                  std::span<const std::byte> digests) override {
    return outer::wrong_blocks(record(fragment), fragment, expected, digests);
  }
  int64_t replay_rounds_max(int64_t fragment) const override;
  std::optional<PastChunk> past_chunk(int64_t fragment, uint64_t round, int64_t chunk) override {
    return record(fragment).past.find(round, chunk);
  }
  base::Result<void> replay_block(int64_t fragment, int64_t block, uint64_t round,
                                  std::span<const PastChunk> chunks) override;

  const Fragment& fragment(int64_t index) const override { return record(index).fragment; }
  std::vector<net::FragmentState> states() const override;
  net::FragmentState state(int64_t fragment) const override;
  bool has_digest(int64_t fragment) const override;
  std::shared_future<base::Digest> digest(int64_t fragment) const override {
    return record(fragment).digest;
  }
  uint64_t version(int64_t fragment) const override;
  bool local_is_finite(int64_t fragment) override { return local_.is_finite(record(fragment)); }
  bool freeze(int64_t fragment) override;
  void thaw(int64_t fragment) override;
  void step(const net::Committed& commit) override;
  bool has_unmerged(int64_t fragment) const override {
    return record(fragment).unmerged.has_value();
  }
  void merge(int64_t fragment, Merge how) override { step_.merge(record(fragment), how); }
  RoundFindings take_findings(int64_t fragment) override;
  void begin_replace(bool keep_local_progress) override;
  base::Result<void> end_replace(const std::vector<net::FragmentState>& expected) override;
  bool outer_is_finite(int64_t fragment) override;
  std::span<const float> outer_parameters(int64_t fragment) const override {
    return record(fragment).parameters;
  }
  std::span<const float> outer_momentum(int64_t fragment) const override {
    return record(fragment).momentum;
  }
  void restore(int64_t fragment, uint64_t version, std::span<const float> parameters,
               std::span<const float> momentum) override;
  std::vector<std::byte> frozen(int64_t fragment) const override {
    return join_payloads(record(fragment).frozen);
  }
  void restore_frozen(int64_t fragment, std::span<const std::byte> encoded) override;
  Unmerged unmerged(int64_t fragment) const override { return OuterStep::save(record(fragment)); }
  void restore_unmerged(int64_t fragment, const Unmerged& unmerged) override {
    step_.restore(record(fragment), unmerged);
  }
  bool settle_frozen(int64_t fragment, bool is_all_counted) override;

 private:
  FragmentRecord& record(int64_t fragment) const {
    CHECK(fragment >= 0 && fragment < fragment_count(), "fragment {} of {}", fragment,
          fragment_count());
    return *records_[size_t(fragment)];
  }

  MeanRule mean_rule(const FragmentRecord& record, int64_t chunk) const;
  StateSummary summary_of(const StateView& view) const;
  void help(SummaryWork& work) const;

  const OuterConfig config_;
  const shard::Layout& layout_;
  base::ThreadPool& pool_;
  const LocalSlices local_;
  const std::unique_ptr<Codec> codec_, result_codec_;
  const OuterStep step_;
  std::vector<std::unique_ptr<FragmentRecord>> records_;
};

HostOuterState::HostOuterState(const OuterConfig& config, const shard::Layout& layout,
                               LocalParameters& local, base::ThreadPool& pool, int64_t results_kept)
    : config_(config),
      layout_(layout),
      pool_(pool),
      local_(layout, local, pool),
      codec_(make_codec(config.codec, config.codebook_sigmas)),
      result_codec_(make_codec(outer::result_codec(config), config.codebook_sigmas)),
      step_(config_, {*codec_, *result_codec_}, local_) {
  for (Fragment& fragment : make_fragments(layout, config.fragments)) {
    auto record = std::make_unique<FragmentRecord>(results_kept);
    record->chunk_elements = chunk_elements(fragment.element_count);
    record->fragment = std::move(fragment);
    const int64_t count = record->element_count();
    record->memory = local.allocate(2 * count * int64_t{sizeof(float)});
    const std::span<float> all =
        record->memory->tensor(backend::DType::kFloat32, {2 * count}).span<float>();
    record->parameters = all.first(size_t(count));
    record->momentum = all.last(size_t(count));
    records_.push_back(std::move(record));
  }
  for (int64_t f = 0; f < fragment_count(); ++f) {
    FragmentRecord& r = record(f);
    local_.for_each_chunk(r, [&](int64_t chunk, std::span<float>) {
      local_.read(r, r.chunk(chunk), part_of(r.parameters, r.chunk(chunk)));
    });
    take(r, 0, summary_of(r.view(f, 0)));
  }
}

// The all-reduce, on any threads.

net::Bytes HostOuterState::contribution(int64_t fragment, int64_t chunk) {
  FragmentRecord& r = record(fragment);
  CHECK(chunk >= 0 && chunk < r.chunk_count());
  std::lock_guard lock(r.mutex);
  if (r.frozen.empty()) return nullptr;
  r.was_asked_for[size_t(chunk)] = 1;
  return r.frozen[size_t(chunk)];
}

net::FragmentStore::Mean HostOuterState::reduce(int64_t fragment, int64_t chunk,
                                                std::span<const Part> parts) {
  const auto start = std::chrono::steady_clock::now();
  FragmentRecord& r = record(fragment);
  const Slice slice = r.chunk(chunk);
  MeanRule rule = mean_rule(r, chunk);
  if (rule.has_floor) {
    std::lock_guard lock(r.mutex);
    rule.reach.norm_floor = std::sqrt(sum_of_squares(part_of(r.parameters, slice)));
  }
  const auto read_momentum = [&](Piece piece, std::span<float> momentum) {
    std::lock_guard lock(r.mutex);
    std::ranges::copy(part_of(r.momentum, {.first = slice.first + piece.first,
                                           .count = int64_t(momentum.size())}),
                      momentum.begin());
  };
  ChunkMean result = mean_of(parts, slice.count, {*codec_, *result_codec_}, rule, read_momentum);
  std::lock_guard lock(r.mutex);
  r.reduce_seconds +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  r.effects[chunk] = std::move(result.effects);
  return std::move(result.mean);
}

// Rows of the embedding move only where their tokens occurred. What only one node has there is no
// outlier, so that nothing is trimmed, and a contribution may be as long as the parameters.
MeanRule HostOuterState::mean_rule(const FragmentRecord& r, int64_t chunk) const {
  MeanRule rule;
  const bool is_embedding =
      r.fragment.units.front() == 0 && r.chunk(chunk).first < layout_.units.front().element_count;
  if (config_.mean == "trimmed" && !is_embedding) {
    rule.trim_share = config_.trim_share;
  } else if (config_.mean != "mean") {
    rule.reach.norm_max = config_.contribution_norm_max;
  }
  rule.has_floor = is_embedding && rule.reach.norm_max > 0;
  return rule;
}

std::optional<net::FragmentStore::Mean> HostOuterState::repeat(int64_t fragment, uint64_t round,
                                                               int64_t chunk,
                                                               std::span<const Part> parts) {
  FragmentRecord& r = record(fragment);
  const Slice slice = r.chunk(chunk);
  MeanRule rule = mean_rule(r, chunk);
  if (rule.has_floor) {
    std::lock_guard lock(r.mutex);
    const bool is_after = r.state.version == round && !r.squares_before.empty();
    const bool is_before = r.state.version + 1 == round;
    if (r.is_being_replaced || (!is_after && !is_before)) return std::nullopt;
    rule.reach.norm_floor = std::sqrt(is_after ? r.squares_before[size_t(chunk)].parameters
                                               : sum_of_squares(part_of(r.parameters, slice)));
  }
  return mean_of(parts, slice.count, {*codec_, *result_codec_}, rule).mean;
}

base::Digest HostOuterState::contribution_root(int64_t fragment) const {
  FragmentRecord& r = record(fragment);
  std::lock_guard lock(r.mutex);
  return r.frozen.empty() ? base::Digest{} : r.frozen_root;
}

// For those who catch up.

int64_t HostOuterState::replay_rounds_max(int64_t fragment) const {
  const FragmentRecord& r = record(fragment);
  const int64_t state_bytes = r.element_count() * int64_t{2 * sizeof(float)};
  int64_t result_bytes = 0;
  for (int64_t chunk = 0; chunk < r.chunk_count(); ++chunk)
    result_bytes += result_codec_->encoded_bytes(r.chunk(chunk).count);
  return state_bytes / result_bytes;
}

base::Result<void> HostOuterState::replay_block(int64_t fragment, int64_t block, uint64_t round,
                                                std::span<const PastChunk> chunks) {
  FragmentRecord& r = record(fragment);
  CHECK(block >= 0 && block < r.block_count());
  std::lock_guard lock(r.mutex);
  if (!r.is_being_replaced) return base::Failure{"the fragment's state is not being replaced"};
  step_.replay(r, fragment, r.block(block), round, chunks);
  return {};
}

// The trainer's side.

std::vector<net::FragmentState> HostOuterState::states() const {
  std::vector<net::FragmentState> states;
  for (int64_t f = 0; f < fragment_count(); ++f) states.push_back(state(f));
  return states;
}

StateSummary HostOuterState::summary_of(const StateView& view) const {
  SummaryWork work(view);
  help(work);
  return work.wait();
}

void HostOuterState::help(SummaryWork& work) const {
  pool_.parallel_items(pool_.thread_count(), [&](int64_t, int) { work.work(); });
}

// Whoever waits for the digest helps to make it. The net thread must not wait for the lock
// meanwhile.
net::FragmentState HostOuterState::state(int64_t fragment) const {
  FragmentRecord& r = record(fragment);
  std::optional<StateSummary> summary;
  if (r.summary) {
    if (!r.summary->is_done()) help(*r.summary);
    summary = r.summary->wait();
    r.summary_thread.get();
    r.summary.reset();
  }
  std::lock_guard lock(r.mutex);
  if (summary) take(r, r.state.version, std::move(*summary));
  return r.state;
}

bool HostOuterState::has_digest(int64_t fragment) const {
  const auto& summary = record(fragment).summary;
  return !summary || summary->is_done();
}

uint64_t HostOuterState::version(int64_t fragment) const {
  FragmentRecord& r = record(fragment);
  std::lock_guard lock(r.mutex);
  return r.state.version;
}

bool HostOuterState::outer_is_finite(int64_t fragment) {
  const FragmentRecord& r = record(fragment);
  std::atomic<bool> is_finite = true;
  local_.for_each_chunk(r, [&](int64_t chunk, std::span<float>) {
    for (const std::span<float> all : {r.parameters, r.momentum}) {
      if (!all_finite(part_of(all, r.chunk(chunk)))) is_finite = false;
    }
  });
  return is_finite;
}

bool HostOuterState::freeze(int64_t fragment) {
  FragmentRecord& r = record(fragment);
  CHECK(!r.unmerged && !r.is_being_replaced, "fragment {}", fragment);
  Contribution made = make_contribution(r, local_, *codec_);
  std::lock_guard lock(r.mutex);
  r.frozen = std::move(made.payloads);
  r.frozen_root = made.root;
  r.was_asked_for.assign(r.frozen.size(), 0);
  return made.is_whole;
}

void HostOuterState::thaw(int64_t fragment) {
  FragmentRecord& r = record(fragment);
  std::lock_guard lock(r.mutex);
  r.frozen.clear();
}

void HostOuterState::step(const net::Committed& commit) {
  FragmentRecord& r = record(commit.fragment);
  (void)state(commit.fragment);  // The last digest's thread reads what is changed now.
  std::lock_guard lock(r.mutex);
  CHECK(!r.is_being_replaced && commit.round == r.state.version + 1, "round {} on version {}",
        commit.round, r.state.version);
  r.squares_before = r.squares;
  step_.step(r, commit);
  r.state = {.version = commit.round, .digest = {}};
  r.summary = std::make_unique<SummaryWork>(r.view(commit.fragment, commit.round));
  r.digest = r.summary->digest();
  r.summary_thread = std::async(std::launch::async, [work = r.summary.get()] {
    base::set_thread_name("digest");
    work->work();
  });
}

RoundFindings HostOuterState::take_findings(int64_t fragment) {
  FragmentRecord& r = record(fragment);
  std::lock_guard lock(r.mutex);
  RoundFindings findings = findings_of(std::exchange(r.effects, {}));
  findings.refused_chunks = std::exchange(r.refused_chunks, 0);
  findings.reduce_seconds = std::exchange(r.reduce_seconds, 0);
  return findings;
}

void HostOuterState::begin_replace(bool keep_local_progress) {
  (void)states();  // Whoever makes a digest reads what is replaced.
  for (const auto& r : records_) {
    std::lock_guard lock(r->mutex);
    if (r->is_being_replaced) continue;
    CHECK(!r->unmerged);
    if (keep_local_progress) local_.update(*r, subtract);
    r->is_being_replaced = true;
    r->keeps_progress = keep_local_progress;
  }
}

base::Result<void> HostOuterState::end_replace(const std::vector<net::FragmentState>& expected) {
  if (int64_t(expected.size()) != fragment_count()) {
    return base::Failure{fmt::format("the state in force has {} fragments, this node's has {}",
                                     expected.size(), fragment_count())};
  }
  std::vector<StateSummary> found;
  for (int64_t f = 0; f < fragment_count(); ++f) {
    FragmentRecord& r = record(f);
    std::lock_guard lock(r.mutex);
    CHECK(r.is_being_replaced);
    found.push_back(summary_of(r.view(f, expected[size_t(f)].version)));
    r.pieces = found.back().pieces;
  }
  for (int64_t f = 0; f < fragment_count(); ++f) {
    const net::FragmentState& wanted = expected[size_t(f)];
    const base::Digest& digest = found[size_t(f)].digest;
    if (!wanted.digest.is_zero() && wanted.digest != digest) {
      return base::Failure{fmt::format("fragment {} at version {}: expected digest {}, found {}", f,
                                       wanted.version, wanted.digest.hex(), digest.hex())};
    }
  }
  for (int64_t f = 0; f < fragment_count(); ++f) {
    FragmentRecord& r = record(f);
    std::lock_guard lock(r.mutex);
    if (r.keeps_progress) {
      local_.update(r, add);
    } else {
      local_.update(r, [](std::span<float> local, std::span<const float> outer) {
        std::ranges::copy(outer, local.begin());
      });
    }
    const net::FragmentState old = r.state;
    take(r, expected[size_t(f)].version, std::move(found[size_t(f)]));
    r.squares_before.clear();
    if (r.state != old) r.past.clear();
    r.is_being_replaced = false;
  }
  return {};
}

void HostOuterState::restore(int64_t fragment, uint64_t version, std::span<const float> parameters,
                             std::span<const float> momentum) {
  FragmentRecord& r = record(fragment);
  std::lock_guard lock(r.mutex);
  CHECK(int64_t(parameters.size()) == r.element_count() && momentum.size() == parameters.size());
  if (!all_finite(parameters) || !all_finite(momentum)) {
    throw base::bad_input(
        fmt::format("the outer state of fragment {} in the checkpoint is not finite", fragment),
        "use an older checkpoint by removing this one's folder");
  }
  std::ranges::copy(parameters, r.parameters.begin());
  std::ranges::copy(momentum, r.momentum.begin());
  take(r, version, summary_of(r.view(fragment, version)));
}

void HostOuterState::restore_frozen(int64_t fragment, std::span<const std::byte> encoded) {
  FragmentRecord& r = record(fragment);
  Contribution restored = restore_contribution(r, encoded, *codec_);
  std::lock_guard lock(r.mutex);
  r.frozen = std::move(restored.payloads);
  r.frozen_root = restored.root;
  r.was_asked_for.assign(r.frozen.size(), 0);
}

bool HostOuterState::settle_frozen(int64_t fragment, bool is_all_counted) {
  FragmentRecord& r = record(fragment);
  CHECK(!r.frozen.empty() && !r.is_being_replaced, "fragment {}", fragment);
  const std::vector<char> is_counted = [&] {
    std::lock_guard lock(r.mutex);
    return is_all_counted ? std::vector<char>(r.frozen.size(), 1) : r.was_asked_for;
  }();
  if (std::ranges::find(is_counted, char{1}) == is_counted.end()) return false;
  local_.for_each_chunk(r, [&](int64_t chunk, std::span<float> scratch) {
    if (is_counted[size_t(chunk)] == 0) return;
    const auto ours = std::span(*r.frozen[size_t(chunk)]).subspan(size_t(net::kContributionOffset));
    local_.update(r, r.chunk(chunk), r.chunk(chunk), scratch,
                  [&](Slice, Piece piece, std::span<float> values) {
                    codec_->decode_add_piece(ours, piece, 1, values);
                  });
  });
  thaw(fragment);
  return true;
}

}  // namespace

std::unique_ptr<OuterState> OuterState::create(const OuterConfig& config,
                                               const shard::Layout& layout, LocalParameters& local,
                                               base::ThreadPool& pool, int64_t results_kept) {
  return std::make_unique<HostOuterState>(config, layout, local, pool, results_kept);
}

}  // namespace outer
