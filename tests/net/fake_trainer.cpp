#include "net/fake_trainer.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/math.h"
#include "net/frozen.h"

namespace net {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kHeldPatience = 10;

uint64_t part_of(HostId host, int64_t chunk) {
  return (uint64_t{1} << host) * uint64_t(chunk + 1);
}

}  // namespace

int64_t weight_of(HostId host) {
  return 1000 + (int64_t{1} << host);
}

// One encoded chunk: a contribution, or the sum of some.
struct FakeTrainer::Encoded {
  uint64_t value = 0;
  int64_t weight = 0;
  uint64_t base_version = 0;  // The state that it belongs to:
  uint64_t base_digest = 0;   // a stale part or one of another lineage would show.
};

namespace {

std::vector<std::byte> bytes_of(const FakeTrainer::Encoded& encoded, int64_t padding_bytes) {
  std::vector<std::byte> bytes(sizeof(encoded) + size_t(padding_bytes));
  std::memcpy(bytes.data(), &encoded, sizeof(encoded));
  return bytes;
}

base::Result<void> check_chunk(std::span<const std::byte> encoded, int64_t chunk,
                               int64_t padding_bytes) {
  FakeTrainer::Encoded content;
  if (encoded.size() != sizeof(content) + size_t(padding_bytes)) {
    return base::Failure{"a chunk of another size"};
  }
  std::memcpy(&content, encoded.data(), sizeof(content));
  if (content.value % uint64_t(chunk + 1) != 0) return base::Failure{"another chunk"};
  return {};
}

}  // namespace

void Oracle::saw_commit(const RoundKey& key, const base::Digest& results) {
  const auto [seen, is_first] = results_.emplace(key, results);
  if (!is_first && seen->second != results) {
    violated(fmt::format("round {} of fragment {} was committed with two results", key.round,
                         key.fragment));
  }
}

void Oracle::saw_state(const RoundKey& key, const base::Digest& before, const base::Digest& after) {
  const auto [seen, is_first] = states_.emplace(key, std::pair(before, after));
  if (!is_first && seen->second != std::pair(before, after)) {
    violated(
        fmt::format("version {} of fragment {} differs between members", key.round, key.fragment));
  }
}

FakeTrainer::Checkpoint FakeTrainer::fresh(const TrainerOptions& options) {
  Checkpoint fresh;
  fresh.versions.assign(size_t(options.fragment_count), 0);
  fresh.values.assign(size_t(options.fragment_count),
                      std::vector<uint64_t>(size_t(options.chunk_count), 0));
  return fresh;
}

FakeTrainer::FakeTrainer(World& world, HostId host, const TrainerOptions& options,
                         Checkpoint checkpoint, Oracle& oracle)
    : world_(world),
      host_(host),
      options_(options),
      oracle_(oracle),
      live_(checkpoint),
      checkpoint_(std::move(checkpoint)),
      weight_(weight_of(host)) {
  is_waiting_.resize(size_t(options.fragment_count));
  is_changing_.resize(size_t(options.fragment_count));
  synced_at_.resize(size_t(options.fragment_count), live_.step);
  frozen_.resize(size_t(options.fragment_count));
  ready_at_.resize(size_t(options.fragment_count));
  past_.resize(size_t(options.fragment_count));
  found_wrong_.resize(size_t(options.fragment_count));
}

Member& FakeTrainer::make_member(const MemberOptions& options) {
  member_ = Member::create(options, *this, states(), live_.step,
                           [this](MemberEvent event) { handle(std::move(event)); });
  return *member_;
}

// --- The numbers.

Bytes FakeTrainer::contribution(int64_t fragment, int64_t chunk) {
  if (!is_waiting_[size_t(fragment)]) {
    oracle_.violated(
        fmt::format("{} is asked for a contribution that it did not offer", where(fragment, 0)));
    return {};
  }
  std::vector<std::byte> bytes = frozen_[size_t(fragment)][size_t(chunk)];
  if (spoiled_left_ > 0 && spoiled_left_-- > 0) bytes.pop_back();
  return frozen(bytes);
}

void FakeTrainer::freeze(size_t fragment) {
  is_waiting_[fragment] = true;
  ready_at_[fragment] = live_.step;
  frozen_[fragment].clear();
  for (int64_t chunk = 0; chunk < options_.chunk_count; ++chunk) {
    const Encoded encoded{.value = part_of(host_, chunk),
                          .weight = weight_,
                          .base_version = version(int64_t(fragment)),
                          .base_digest = digest_word(int64_t(fragment))};
    frozen_[fragment].push_back(bytes_of(encoded, options_.padding_bytes));
  }
}

base::Result<void> FakeTrainer::check_contribution(int64_t, int64_t chunk,
                                                   std::span<const std::byte> encoded) const {
  return check_chunk(encoded, chunk, options_.padding_bytes);
}

base::Result<void> FakeTrainer::check_result(int64_t, int64_t chunk,
                                             std::span<const std::byte> encoded) const {
  return check_chunk(encoded, chunk, options_.result_padding_bytes);
}

FragmentStore::Mean FakeTrainer::reduce(int64_t fragment, int64_t chunk,
                                        std::span<const Part> parts) {
  Encoded sum{.base_version = version(fragment), .base_digest = digest_word(fragment)};
  PeerId last = 0;
  for (const Part& part : parts) {
    Encoded content;
    std::memcpy(&content, part.encoded().data(), sizeof(content));
    const bool is_in_order = &part == &parts.front() || part.peer > last;
    const bool has_weight = content.weight == part.weight_tokens;
    const bool has_base =
        content.base_version == sum.base_version && content.base_digest == sum.base_digest;
    if (!is_in_order || !has_weight || !has_base) {
      oracle_.violated(fmt::format("{}: part of peer {} of chunk {}: order {} weight {} base {}",
                                   where(fragment, sum.base_version + 1), part.peer, chunk,
                                   is_in_order, has_weight, has_base));
    }
    last = part.peer;
    sum.value += content.value;
    sum.weight += part.weight_tokens;
  }
  return {bytes_of(sum, options_.result_padding_bytes), {}};
}

FragmentStore::Cut FakeTrainer::cut(int64_t) const {
  return {.elements = options_.chunk_count,
          .chunk_elements = 1,
          .block_elements = base::div_ceil(options_.chunk_count, options_.block_count)};
}

// The last blocks may be empty.
std::span<uint64_t> FakeTrainer::values_of_block(int64_t fragment, int64_t block) {
  const int64_t first = std::min(block * cut(fragment).block_elements, options_.chunk_count);
  const int64_t count = std::min(cut(fragment).block_elements, options_.chunk_count - first);
  return std::span(live_.values[size_t(fragment)]).subspan(size_t(first), size_t(count));
}

std::optional<FragmentStore::StateBlock> FakeTrainer::read_block(int64_t fragment, int64_t block) {
  if (is_changing_[size_t(fragment)]) return std::nullopt;
  StateBlock read{.version = version(fragment), .bytes = {}};
  const auto bytes = std::as_bytes(values_of_block(fragment, block));
  read.bytes.assign(bytes.begin(), bytes.end());
  if (!bytes.empty() && spoiled_blocks_left_ > 0 && spoiled_blocks_left_-- > 0)
    read.bytes[0] ^= std::byte{1};
  read.bytes.resize(read.bytes.size() +
                    size_t(options_.padding_bytes + options_.block_padding_bytes));
  return read;
}

base::Result<void> FakeTrainer::write_block(int64_t fragment, int64_t block,
                                            std::span<const std::byte> bytes) {
  if (is_running_) oracle_.violated(where(fragment, 0) + ": a block was written while it trains");
  const auto values = std::as_writable_bytes(values_of_block(fragment, block));
  if (values.size() > bytes.size()) return base::Failure{"a block that is too short"};
  std::copy_n(bytes.begin(), values.size(), values.begin());
  return {};
}

std::optional<FragmentStore::PastChunk> FakeTrainer::past_chunk(int64_t fragment, uint64_t round,
                                                                int64_t chunk) {
  const auto& past = past_[size_t(fragment)];
  const auto found = past.find(round);
  if (found == past.end()) return std::nullopt;
  return PastChunk{.step = found->second.step, .result = found->second.results[size_t(chunk)]};
}

base::Result<void> FakeTrainer::replay_block(int64_t fragment, int64_t block, uint64_t round,
                                             std::span<const PastChunk> chunks) {
  if (is_running_) oracle_.violated(where(fragment, round) + " is replayed while it trains");
  const std::span<uint64_t> values = values_of_block(fragment, block);
  if (chunks.size() != values.size()) {
    oracle_.violated(fmt::format("{}: replayed with {} chunks for {} values",
                                 where(fragment, round), chunks.size(), values.size()));
    return base::Failure{"another number of chunks"};
  }
  for (size_t i = 0; i < values.size(); ++i) {
    Encoded sum;
    std::memcpy(&sum, chunks[i].result.encoded().data(), sizeof(sum));
    if (sum.base_version + 1 != round)
      oracle_.violated(where(fragment, round) + " is replayed with another round's result");
    values[i] += sum.value;
  }
  return {};
}

base::Digest FakeTrainer::digest(int64_t fragment) const {
  const std::vector<base::Digest> all = block_digests(fragment);
  return base::sha256(std::as_bytes(std::span(all)));
}

std::vector<base::Digest> FakeTrainer::block_digests(int64_t fragment) const {
  const std::span<const uint64_t> values = live_.values[size_t(fragment)];
  const auto count = size_t(cut(fragment).block_elements);
  std::vector<base::Digest> digests;
  for (size_t first = 0; first < values.size(); first += count) {
    digests.push_back(
        base::sha256(std::as_bytes(values.subspan(first, std::min(count, values.size() - first)))));
  }
  return digests;
}

std::optional<std::vector<std::byte>> FakeTrainer::digests(int64_t fragment, uint64_t version) {
  if (version != this->version(fragment) || is_changing_[size_t(fragment)]) return std::nullopt;
  const std::vector<base::Digest> all = block_digests(fragment);
  const auto bytes = std::as_bytes(std::span(all));
  return std::vector<std::byte>(bytes.begin(), bytes.end());
}

// The state may have been brought on since it was found to be wrong.
base::Result<std::vector<int64_t>> FakeTrainer::wrong_blocks(int64_t fragment,
                                                             const FragmentState& expected,
                                                             std::span<const std::byte> digests) {
  if (base::sha256(digests) != expected.digest) return base::Failure{"digests of another state"};
  const std::vector<base::Digest>& ours = found_wrong_[size_t(fragment)];
  std::vector<int64_t> wrong;
  for (size_t block = 0; block < ours.size(); ++block) {
    const auto theirs = digests.subspan(block * sizeof(base::Digest), sizeof(base::Digest));
    if (!std::ranges::equal(theirs, std::as_bytes(std::span(ours[block].bytes))))
      wrong.push_back(int64_t(block));
  }
  return wrong;
}

uint64_t FakeTrainer::digest_word(int64_t fragment) const {
  uint64_t word;
  std::memcpy(&word, digest(fragment).bytes.data(), sizeof(word));
  return word;
}

std::vector<FragmentState> FakeTrainer::states() const {
  std::vector<FragmentState> states;
  for (int64_t f = 0; f < options_.fragment_count; ++f) states.push_back({version(f), digest(f)});
  return states;
}

// --- The trainer. Events wait in a queue, as in a thread of its own.

void FakeTrainer::later(Duration delay, std::function<void(Instant, Outbox&)> call) {
  world_.after(delay, [this, is_alive = std::weak_ptr(is_alive_), call = std::move(call)] {
    if (is_alive.expired() || !world_.is_on(host_)) return;
    world_.call(host_, [is_alive, call](Instant now, Outbox& out) {
      if (!is_alive.expired()) call(now, out);
    });
  });
}

void FakeTrainer::handle(MemberEvent event) {
  events_.emplace_back(std::move(event), commit_term_);
  later(Duration(world_.random().below(uint64_t(Duration(milliseconds(3)).count()))),
        [this](Instant, Outbox&) { handle_next(); });
}

void FakeTrainer::handle_next() {
  const auto [event, term] = std::move(events_.front());
  events_.pop_front();
  commit_term_ = term;
  if (std::holds_alternative<CatchUpNeeded>(event)) on_catch_up_needed();
  if (const auto* fetched = std::get_if<Fetched>(&event)) on_fetched(*fetched);
  if (const auto* started = std::get_if<Started>(&event)) on_started(*started);
  if (const auto* committed = std::get_if<Committed>(&event)) on_committed(*committed);
  if (const auto* stopped = std::get_if<Stopped>(&event)) {
    is_running_ = false;
    stopped_ = *stopped;
  }
}

void FakeTrainer::on_catch_up_needed() {
  ++catch_up_count_;
  is_running_ = false;
  is_waiting_.assign(is_waiting_.size(), false);
  later(milliseconds(5), [this](Instant now, Outbox& out) { member_->begin_fetch(now, out); });
}

void FakeTrainer::on_fetched(const Fetched& fetched) {
  bool is_verified = true;
  for (int64_t f = 0; f < options_.fragment_count; ++f) {
    const FragmentState& expected = fetched.expected[size_t(f)];
    if (version(f) != expected.version) past_[size_t(f)].clear();
    live_.versions[size_t(f)] = expected.version;
    if (!expected.digest.is_zero() && digest(f) != expected.digest) is_verified = false;
    found_wrong_[size_t(f)] = block_digests(f);
  }
  later(milliseconds(5), [this, is_verified](Instant now, Outbox& out) {
    if (is_verified) {
      member_->synced(states(), now, out);
    } else {
      member_->begin_fetch(now, out);
    }
  });
}

void FakeTrainer::on_started(const Started& started) {
  peer_ = started.peer;
  ++start_count_;
  last_start_step_ = started.step;
  if (!is_running_) {
    live_.step = started.step;
    synced_at_.assign(synced_at_.size(), live_.step);
  }
  is_running_ = true;
  if (!is_stepping_) step();
}

void FakeTrainer::on_committed(const Committed& committed) {
  const int64_t f = committed.fragment;
  const Oracle::RoundKey key{.term = commit_term_, .fragment = f, .round = committed.round};
  commits_.push_back(committed);
  check_results(committed);
  oracle_.saw_commit(key, committed.result_digest);
  is_changing_[size_t(f)] = true;
  later(options_.apply_time, [=, this](Instant now, Outbox& out) {
    const base::Digest before = digest(f);
    for (size_t chunk = 0; chunk < committed.results.size(); ++chunk) {
      Encoded sum;
      std::memcpy(&sum, committed.results[chunk].encoded().data(), sizeof(sum));
      live_.values[size_t(f)][chunk] += sum.value;
    }
    live_.versions[size_t(f)] = committed.round;
    auto& past = past_[size_t(f)];
    past[committed.round] = committed;
    while (int64_t(past.size()) > options_.results_kept) past.erase(past.begin());
    is_changing_[size_t(f)] = false;
    is_waiting_[size_t(f)] = false;
    synced_at_[size_t(f)] = live_.step;
    oracle_.saw_state(key, before, digest(f));
    checkpoint_ = live_;
    member_->applied(f, {committed.round, digest(f)}, now, out);
  });
}

void FakeTrainer::check_results(const Committed& committed) {
  const int64_t f = committed.fragment;
  const std::string place = where(f, committed.round);
  if (committed.round != version(f) + 1) {
    oracle_.violated(fmt::format("{} comes after version {}", place, version(f)));
  }
  if (int64_t(committed.results.size()) != options_.chunk_count) {
    return oracle_.violated(place + " has another number of chunks");
  }
  uint64_t in_any = 0;
  for (size_t chunk = 0; chunk < committed.results.size(); ++chunk) {
    const Part& part = committed.results[chunk];
    Encoded sum;
    std::memcpy(&sum, part.encoded().data(), sizeof(sum));
    uint64_t mask = 0;
    std::memcpy(&mask, part.bytes->data() + 1, sizeof(mask));
    const uint64_t hosts = sum.value / (chunk + 1);
    const int64_t weight = 1000 * std::popcount(hosts) + int64_t(hosts);
    const bool is_legal = sum.value % (chunk + 1) == 0 && hosts != 0;
    const bool has_weight =
        sum.weight == part.weight_tokens &&
        (sum.weight == weight || sum.weight == 0 || weight_ != weight_of(host_));
    const bool has_count = std::popcount(mask) == std::popcount(hosts);
    const bool has_base =
        sum.base_version + 1 == committed.round && sum.base_digest == digest_word(f);
    const bool has_ours =
        committed.has_ours[chunk] == 0 || was_spoiled_ || (hosts >> host_ & 1) != 0;
    if (!is_legal || !has_weight || !has_count || !has_base || !has_ours) {
      oracle_.violated(fmt::format(
          "{}: chunk {} has value {} and weight {} (said: {}) of contributors {:x}, base {}, ours "
          "{}",
          place, chunk, sum.value, sum.weight, part.weight_tokens, mask, has_base, has_ours));
    }
    in_any |= hosts;
  }
  if (int64_t(committed.members.size()) != std::popcount(in_any)) {
    oracle_.violated(fmt::format("{} names {} members", place, committed.members.size()));
  }
}

void FakeTrainer::withdraw() {
  for (size_t f = 0; f < is_waiting_.size(); ++f) {
    if (!is_waiting_[f]) continue;
    world_.call(host_, [this, f](Instant now, Outbox& out) {
      is_waiting_[f] = false;
      synced_at_[f] = live_.step;
      member_->ready(int64_t(f), -1, live_.step, now, out);
    });
  }
}

bool FakeTrainer::is_held_up() const {
  for (size_t f = 0; f < is_waiting_.size(); ++f) {
    if (is_waiting_[f] && live_.step >= ready_at_[f] + options_.overlap_steps_max) return true;
  }
  return false;
}

void FakeTrainer::step() {
  is_stepping_ = true;
  const auto micros = uint64_t(options_.step_time.count() / 1000);
  const Duration duration =
      std::chrono::microseconds(micros + world_.random().below(micros / 5 + 1));
  later(duration, [this](Instant now, Outbox& out) {
    is_stepping_ = false;
    if (!is_running_) return;
    held_count_ = is_held_up() ? held_count_ + 1 : 0;
    if (held_count_ == 0) {
      ++live_.step;
      member_->progress(live_.step, 1.0f);
    }
    for (size_t f = 0; f < is_waiting_.size(); ++f) {
      const uint64_t start = f * options_.steps_per_round / is_waiting_.size();
      if (is_waiting_[f] || is_changing_[f]) continue;
      const bool is_due = live_.step >= synced_at_[f] + options_.steps_per_round +
                                            (version(int64_t(f)) == 0 ? start : 0);
      // Two that wait for each other's fragments meet where both have said all.
      if (!is_due && held_count_ < kHeldPatience) continue;
      freeze(f);
      member_->ready(int64_t(f), weight_, live_.step, now, out);
    }
    step();
  });
}

std::string FakeTrainer::where(int64_t fragment, uint64_t round) const {
  return fmt::format("node {}, round {} of fragment {}", host_, round, fragment);
}

}  // namespace net
