#include "outer/outer_state.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/log.h"
#include "outer/chunk_mean.h"
#include "outer/codec.h"
#include "outer/fragment_record.h"
#include "outer/outer_optimizer.h"
#include "outer/state_digest.h"

namespace outer {

namespace {

void subtract(std::span<float> from, std::span<const float> what) {
  for (size_t i = 0; i < from.size(); ++i) from[i] = from[i] - what[i];
}

void add(std::span<float> to, std::span<const float> what) {
  for (size_t i = 0; i < to.size(); ++i) to[i] = to[i] + what[i];
}

class HostOuterState final : public OuterState {
 public:
  HostOuterState(const OuterConfig& config, const shard::Layout& layout, LocalParameters& local,
                 base::ThreadPool& pool);

  int64_t fragment_count() const override { return int64_t(records_.size()); }
  int64_t chunk_count(int64_t fragment) const override { return record(fragment).chunk_count(); }
  int64_t block_count(int64_t fragment) const override { return record(fragment).block_count(); }

  std::vector<std::byte> encode_contribution(int64_t fragment, int64_t chunk) override;
  base::Result<void> check(int64_t fragment, int64_t chunk,
                           std::span<const std::byte> encoded) const override;
  Mean reduce(int64_t fragment, int64_t chunk, std::span<const Part> parts) override;
  std::optional<StateBlock> read_block(int64_t fragment, int64_t block) override;
  base::Result<void> write_block(int64_t fragment, int64_t block,
                                 std::span<const std::byte> bytes) override;

  const Fragment& fragment(int64_t index) const override { return record(index).fragment; }
  std::vector<net::FragmentState> states() const override;
  bool local_is_finite(int64_t fragment) override;
  net::FragmentState apply(const net::Committed& commit, Merge merge) override;
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

 private:
  FragmentRecord& record(int64_t fragment) const {
    CHECK(fragment >= 0 && fragment < fragment_count(), "fragment {} of {}", fragment,
          fragment_count());
    return *records_[size_t(fragment)];
  }

  // Elements of a fragment lie in several units.
  void read_local(const FragmentRecord& record, Slice slice, std::span<float> values);
  void write_local(const FragmentRecord& record, Slice slice, std::span<const float> values);
  template <class Body>
  void for_each_chunk(const FragmentRecord& record, const Body& body);
  template <class Body>
  void for_each_unit_piece(const FragmentRecord& record, Slice slice, const Body& body) const;

  // local = merge(local, outer), chunk by chunk over all threads.
  template <class Body>
  void update_local(FragmentRecord& record, const Body& merge);

  // How the chunks of a round are applied.
  struct Step {
    Merge merge = Merge::kOverwrite;
    bool is_short = false;
    double mean_rms_max = 0;
  };
  // False: refused.
  bool apply_chunk(FragmentRecord& record, Slice slice, std::span<const std::byte> encoded,
                   const Step& step);
  void keep_progress(FragmentRecord& record, Slice slice);
  void report_refused(FragmentRecord& record, const net::Committed& commit,
                      const std::vector<char>& is_refused);
  double mean_rms_max(const FragmentRecord& record);
  base::Digest digest_of(const FragmentRecord& record, int64_t fragment, uint64_t version);

  const OuterConfig config_;
  const shard::Layout& layout_;
  LocalParameters& local_;
  base::ThreadPool& pool_;
  const std::unique_ptr<Codec> codec_;
  const OuterOptimizer optimizer_;
  std::vector<std::unique_ptr<FragmentRecord>> records_;
};

HostOuterState::HostOuterState(const OuterConfig& config, const shard::Layout& layout,
                               LocalParameters& local, base::ThreadPool& pool)
    : config_(config),
      layout_(layout),
      local_(local),
      pool_(pool),
      codec_(make_codec(config.codec)),
      optimizer_{.learning_rate = float(config.learning_rate), .momentum = float(config.momentum)} {
  for (Fragment& fragment : make_fragments(layout, config.fragments)) {
    auto record = std::make_unique<FragmentRecord>();
    record->chunk_elements = chunk_elements(fragment.element_count);
    record->fragment = std::move(fragment);
    const int64_t count = record->element_count();
    record->memory = local_.allocate(2 * count * int64_t{sizeof(float)});
    const std::span<float> all =
        record->memory->tensor(backend::DType::kFloat32, {2 * count}).span<float>();
    record->parameters = all.first(size_t(count));
    record->momentum = all.last(size_t(count));
    records_.push_back(std::move(record));
  }
  for (int64_t f = 0; f < fragment_count(); ++f) {
    FragmentRecord& r = record(f);
    for_each_chunk(r, [&](int64_t chunk) {
      read_local(r, r.chunk(chunk), part_of(r.parameters, r.chunk(chunk)));
    });
    r.state.digest = digest_of(r, f, 0);
  }
}

// On all threads of the pool. Chunks that come one after the other are far from each other in the
// fragment: where a node has several ranks, in the shards of different ones, so that all ranks copy
// at the same time.
template <class Body>
void HostOuterState::for_each_chunk(const FragmentRecord& record, const Body& body) {
  const int64_t count = record.chunk_count();
  int64_t stride = std::max<int64_t>(1, count * 3 / 8);
  while (std::gcd(stride, count) != 1) ++stride;
  pool_.parallel_items(count, [&](int64_t index, int) { body(index * stride % count); });
}

template <class Body>
void HostOuterState::for_each_unit_piece(const FragmentRecord& record, Slice slice,
                                         const Body& body) const {
  int64_t unit_begin = 0;  // In elements of the fragment.
  for (const int64_t unit : record.fragment.units) {
    const int64_t unit_end = unit_begin + layout_.units[size_t(unit)].element_count;
    const int64_t begin = std::max(unit_begin, slice.first);
    const int64_t end = std::min(unit_end, slice.first + slice.count);
    if (begin < end) {
      body(unit, begin - unit_begin, Slice{.first = begin - slice.first, .count = end - begin});
    }
    unit_begin = unit_end;
  }
}

void HostOuterState::read_local(const FragmentRecord& record, Slice slice,
                                std::span<float> values) {
  for_each_unit_piece(record, slice, [&](int64_t unit, int64_t first, Slice in_values) {
    local_.read(unit, first, values.subspan(size_t(in_values.first), size_t(in_values.count)));
  });
}

void HostOuterState::write_local(const FragmentRecord& record, Slice slice,
                                 std::span<const float> values) {
  for_each_unit_piece(record, slice, [&](int64_t unit, int64_t first, Slice in_values) {
    local_.write(unit, first, values.subspan(size_t(in_values.first), size_t(in_values.count)));
  });
}

template <class Body>
void HostOuterState::update_local(FragmentRecord& record, const Body& merge) {
  for_each_chunk(record, [&](int64_t chunk) {
    const Slice slice = record.chunk(chunk);
    std::vector<float> values(static_cast<size_t>(slice.count));
    read_local(record, slice, values);
    merge(std::span<float>(values), std::span<const float>(part_of(record.parameters, slice)));
    write_local(record, slice, values);
  });
}

base::Digest HostOuterState::digest_of(const FragmentRecord& record, int64_t fragment,
                                       uint64_t version) {
  return state_digest({.version = version,
                       .fragment = fragment,
                       .parameters = record.parameters,
                       .momentum = record.momentum},
                      pool_);
}

// The all-reduce, on the net thread.

std::vector<std::byte> HostOuterState::encode_contribution(int64_t fragment, int64_t chunk) {
  FragmentRecord& r = record(fragment);
  CHECK(chunk >= 0 && chunk < r.chunk_count());
  const Slice slice = r.chunk(chunk);
  std::vector<float> values(static_cast<size_t>(slice.count));
  {
    std::lock_guard lock(r.mutex);
    if (!r.is_being_replaced) {
      read_local(r, slice, values);
      const std::span<const float> exact = part_of(r.parameters, slice);
      std::vector<float> outer(exact.begin(), exact.end());
      local_.round(outer);
      for (size_t i = 0; i < values.size(); ++i) values[i] = outer[i] - values[i];
    } else if (r.keeps_progress) {
      // Another fragment's repair has begun while this one is in a round: its difference is kept,
      // with the sign turned.
      read_local(r, slice, values);
      for (float& value : values) value = -value;
    }
  }
  std::vector<std::byte> encoded(static_cast<size_t>(codec_->encoded_bytes(slice.count)));
  if (!codec_->encode(values, encoded)) {
    // Parameters that are not finite must not spread. OuterLoop has looked at them before it
    // announced this fragment, and has announced it with no weight, so that the zeros sent here
    // dilute nobody else's progress.
    base::log_warning(
        "outer: the pseudo-gradient of fragment {} chunk {} is not finite; sending zeros", fragment,
        chunk);
    std::ranges::fill(values, 0.0f);
    CHECK(codec_->encode(values, encoded).ok());
  }
  return encoded;
}

base::Result<void> HostOuterState::check(int64_t fragment, int64_t chunk,
                                         std::span<const std::byte> encoded) const {
  const FragmentRecord& r = record(fragment);
  CHECK(chunk >= 0 && chunk < r.chunk_count());
  return codec_->check(encoded, r.chunk(chunk).count);
}

net::FragmentStore::Mean HostOuterState::reduce(int64_t fragment, int64_t chunk,
                                                std::span<const Part> parts) {
  FragmentRecord& r = record(fragment);
  const Slice slice = r.chunk(chunk);
  ReachRule rule{.norm_max = config_.contribution_norm_max};
  const bool is_embedding =
      r.fragment.units.front() == 0 && slice.first < layout_.units.front().element_count;
  if (is_embedding) {
    std::lock_guard lock(r.mutex);
    rule.norm_floor = norm_of(part_of(r.parameters, slice));
  }
  ChunkMean result = mean_of(parts, slice.count, *codec_, rule);
  std::lock_guard lock(r.mutex);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (result.reach[i] == 1) continue;
    RoundFindings::Outlier& outlier = r.outliers[parts[i].peer];
    outlier.peer = parts[i].peer;
    ++(result.reach[i] > 0 ? outlier.shortened_chunks : outlier.left_out_chunks);
  }
  return std::move(result.mean);
}

// State transfer, on the net thread.

std::optional<net::FragmentStore::StateBlock> HostOuterState::read_block(int64_t fragment,
                                                                         int64_t block) {
  FragmentRecord& r = record(fragment);
  CHECK(block >= 0 && block < r.block_count());
  std::unique_lock lock(r.mutex, std::try_to_lock);
  if (!lock.owns_lock() || r.is_being_replaced) return std::nullopt;
  const std::span<const std::byte> parameters =
      std::as_bytes(part_of(r.parameters, r.block(block)));
  const std::span<const std::byte> momentum = std::as_bytes(part_of(r.momentum, r.block(block)));
  StateBlock out{.version = r.state.version, .bytes = {}};
  out.bytes.reserve(parameters.size() + momentum.size());
  out.bytes.insert(out.bytes.end(), parameters.begin(), parameters.end());
  out.bytes.insert(out.bytes.end(), momentum.begin(), momentum.end());
  return out;
}

base::Result<void> HostOuterState::write_block(int64_t fragment, int64_t block,
                                               std::span<const std::byte> bytes) {
  FragmentRecord& r = record(fragment);
  CHECK(block >= 0 && block < r.block_count());
  const std::span<float> parameters = part_of(r.parameters, r.block(block));
  const std::span<float> momentum = part_of(r.momentum, r.block(block));
  if (bytes.size() != 2 * parameters.size_bytes()) {
    return base::Failure{fmt::format("state block {} of fragment {}: expected {} bytes, found {}",
                                     block, fragment, 2 * parameters.size_bytes(), bytes.size())};
  }
  std::vector<float> values(2 * parameters.size());  // The bytes need not be aligned.
  std::ranges::copy(bytes, std::as_writable_bytes(std::span(values)).begin());
  if (!all_finite(values)) {
    return base::Failure{
        fmt::format("state block {} of fragment {}: a value is not finite", block, fragment)};
  }
  std::lock_guard lock(r.mutex);
  if (!r.is_being_replaced) {
    return base::Failure{
        fmt::format("state block {} of fragment {}: nobody waits for it", block, fragment)};
  }
  std::copy_n(values.begin(), parameters.size(), parameters.begin());
  std::copy_n(values.begin() + int64_t(parameters.size()), momentum.size(), momentum.begin());
  return {};
}

// The trainer's side.

std::vector<net::FragmentState> HostOuterState::states() const {
  std::vector<net::FragmentState> states;
  for (const auto& r : records_) {
    std::lock_guard lock(r->mutex);
    states.push_back(r->state);
  }
  return states;
}

bool HostOuterState::local_is_finite(int64_t fragment) {
  const FragmentRecord& r = record(fragment);
  std::atomic<bool> is_finite = true;
  for_each_chunk(r, [&](int64_t chunk) {
    std::vector<float> values(static_cast<size_t>(r.chunk(chunk).count));
    read_local(r, r.chunk(chunk), values);
    if (!all_finite(values)) is_finite = false;
  });
  return is_finite;
}

bool HostOuterState::outer_is_finite(int64_t fragment) {
  const FragmentRecord& r = record(fragment);
  std::atomic<bool> is_finite = true;
  for_each_chunk(r, [&](int64_t chunk) {
    for (const std::span<float> all : {r.parameters, r.momentum}) {
      if (!all_finite(part_of(all, r.chunk(chunk)))) is_finite = false;
    }
  });
  return is_finite;
}

net::FragmentState HostOuterState::apply(const net::Committed& commit, Merge merge) {
  FragmentRecord& r = record(commit.fragment);
  std::lock_guard lock(r.mutex);
  CHECK(!r.is_being_replaced && commit.round == r.state.version + 1, "round {} on version {}",
        commit.round, r.state.version);
  CHECK(int64_t(commit.results.size()) == r.chunk_count());
  const int64_t covered =
      steps_covered(int64_t(commit.step), config_.inner_steps, config_.fragments, commit.fragment);
  const Step step{
      .merge = merge, .is_short = covered < config_.inner_steps, .mean_rms_max = mean_rms_max(r)};
  std::vector<char> is_refused(commit.results.size());
  for_each_chunk(r, [&](int64_t chunk) {
    is_refused[size_t(chunk)] =
        !apply_chunk(r, r.chunk(chunk), commit.results[size_t(chunk)].encoded(), step);
  });
  report_refused(r, commit, is_refused);
  r.state = {.version = commit.round, .digest = digest_of(r, commit.fragment, commit.round)};
  return r.state;
}

// A multiple of the parameters' own RMS, which every node computes alike: chunks are summed up in
// their order.
double HostOuterState::mean_rms_max(const FragmentRecord& record) {
  std::vector<double> norms(static_cast<size_t>(record.chunk_count()));
  for_each_chunk(record, [&](int64_t chunk) {
    norms[size_t(chunk)] = norm_of(part_of(record.parameters, record.chunk(chunk)));
  });
  double squares = 0;
  for (const double norm : norms) squares += norm * norm;
  const double factor = config_.contribution_norm_max * config_.contribution_norm_max;
  const double bound = factor * std::sqrt(squares / double(record.element_count()));
  return bound > 0 ? bound : std::numeric_limits<double>::infinity();
}

bool HostOuterState::apply_chunk(FragmentRecord& record, Slice slice,
                                 std::span<const std::byte> encoded, const Step& step) {
  const std::span<float> old_parameters = part_of(record.parameters, slice);
  const std::span<float> old_momentum = part_of(record.momentum, slice);
  std::vector<float> mean(static_cast<size_t>(slice.count));
  codec_->decode(encoded, mean);
  std::vector<float> parameters(old_parameters.begin(), old_parameters.end());
  std::vector<float> momentum(old_momentum.begin(), old_momentum.end());
  if (step.is_short) {
    subtract(parameters, mean);
  } else {
    optimizer_.step(mean, parameters, momentum);
  }
  const bool is_absurd = norm_of(mean) > step.mean_rms_max * std::sqrt(double(slice.count));
  if (is_absurd || !all_finite(parameters) || !all_finite(momentum)) {
    if (step.merge == Merge::kOverwrite) keep_progress(record, slice);
    return false;
  }
  if (step.merge == Merge::kOverwrite) {
    write_local(record, slice, parameters);
  } else {
    std::vector<float> values(static_cast<size_t>(slice.count));
    read_local(record, slice, values);
    subtract(values, old_parameters);
    add(values, parameters);
    write_local(record, slice, values);
  }
  std::ranges::copy(parameters, old_parameters.begin());
  std::ranges::copy(momentum, old_momentum.begin());
  return true;
}

// What the node has in a chunk that is refused stays, if it is something.
void HostOuterState::keep_progress(FragmentRecord& record, Slice slice) {
  std::vector<float> values(static_cast<size_t>(slice.count));
  read_local(record, slice, values);
  if (!all_finite(values)) write_local(record, slice, part_of(record.parameters, slice));
}

void HostOuterState::report_refused(FragmentRecord& record, const net::Committed& commit,
                                    const std::vector<char>& is_refused) {
  const int64_t count = std::ranges::count(is_refused, char{1});
  if (count == 0) return;
  record.refused_chunks += count;
  const size_t first = size_t(std::ranges::find(is_refused, char{1}) - is_refused.begin());
  base::log_error(
      "outer: round {} of fragment {}: {} of {} chunks are refused, as their means would ruin the "
      "parameters; the first is chunk {}, which member {} summed",
      commit.round, commit.fragment, count, is_refused.size(), first, commit.results[first].peer);
}

RoundFindings HostOuterState::take_findings(int64_t fragment) {
  FragmentRecord& r = record(fragment);
  std::lock_guard lock(r.mutex);
  RoundFindings findings{.outliers = {}, .refused_chunks = std::exchange(r.refused_chunks, 0)};
  for (const auto& [peer, outlier] : std::exchange(r.outliers, {}))
    findings.outliers.push_back(outlier);
  return findings;
}

void HostOuterState::begin_replace(bool keep_local_progress) {
  for (const auto& r : records_) {
    std::lock_guard lock(r->mutex);
    if (r->is_being_replaced) continue;
    if (keep_local_progress) update_local(*r, subtract);
    r->is_being_replaced = true;
    r->keeps_progress = keep_local_progress;
  }
}

base::Result<void> HostOuterState::end_replace(const std::vector<net::FragmentState>& expected) {
  if (int64_t(expected.size()) != fragment_count()) {
    return base::Failure{fmt::format("the state in force has {} fragments, this node's has {}",
                                     expected.size(), fragment_count())};
  }
  std::vector<net::FragmentState> found;
  for (int64_t f = 0; f < fragment_count(); ++f) {
    FragmentRecord& r = record(f);
    std::lock_guard lock(r.mutex);
    CHECK(r.is_being_replaced);
    const net::FragmentState& wanted = expected[size_t(f)];
    found.push_back({.version = wanted.version, .digest = digest_of(r, f, wanted.version)});
    if (!wanted.digest.is_zero() && wanted != found.back()) {
      return base::Failure{fmt::format("fragment {} at version {}: expected digest {}, found {}", f,
                                       wanted.version, wanted.digest.hex(),
                                       found.back().digest.hex())};
    }
  }
  for (int64_t f = 0; f < fragment_count(); ++f) {
    FragmentRecord& r = record(f);
    std::lock_guard lock(r.mutex);
    if (r.keeps_progress) {
      update_local(r, add);
    } else {
      update_local(r, [](std::span<float> local, std::span<const float> outer) {
        std::ranges::copy(outer, local.begin());
      });
    }
    r.state = found[size_t(f)];
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
  r.state = {.version = version, .digest = digest_of(r, fragment, version)};
}

}  // namespace

std::unique_ptr<OuterState> OuterState::create(const OuterConfig& config,
                                               const shard::Layout& layout, LocalParameters& local,
                                               base::ThreadPool& pool) {
  return std::make_unique<HostOuterState>(config, layout, local, pool);
}

}  // namespace outer
