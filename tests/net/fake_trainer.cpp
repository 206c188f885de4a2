#include "net/fake_trainer.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/math.h"
#include "net/exchange/chunk.h"

namespace net {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kHeldPatience = 10;
// Of steps, at the end of the run.
constexpr int64_t kEndPatience = 300;

uint64_t part_of(HostId host, int64_t chunk) {
  return (uint64_t{1} << host) * uint64_t(chunk + 1);
}

int64_t elements_of_block(const TrainerOptions& options) {
  return base::div_ceil(options.chunk_count, options.block_count);
}

}  // namespace

int64_t weight_of(HostId host) {
  return 1000 + (int64_t{1} << host);
}

// One encoded chunk: a contribution, or the sum of some.
struct FakeTrainer::Encoded {
  uint64_t value = 0;
  int64_t weight = 0;
  uint64_t base_version = 0;                  // The state that it belongs to:
  uint64_t base_digest = 0;                   // a stale part or one of another lineage would show.
  std::array<uint64_t, kNodesMax> serials{};  // Of the work of each node that is in it.
  uint64_t is_lie = 0;                        // Made wrong on purpose.

  uint64_t hosts() const {
    uint64_t mask = 0;
    for (size_t host = 0; host < serials.size(); ++host) {
      if (serials[host] != 0) mask |= uint64_t{1} << host;
    }
    return mask;
  }
};

namespace {

std::vector<std::byte> bytes_of(const FakeTrainer::Encoded& encoded, int64_t padding_bytes) {
  std::vector<std::byte> bytes(sizeof(encoded) + size_t(padding_bytes));
  std::memcpy(bytes.data(), &encoded, sizeof(encoded));
  return bytes;
}

void add(FakeTrainer::Encoded& sum, const FakeTrainer::Encoded& part, int64_t weight_tokens) {
  sum.value += part.value;
  sum.weight += weight_tokens;
  for (size_t host = 0; host < kNodesMax; ++host) sum.serials[host] |= part.serials[host];
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
  serials_.resize(size_t(options.fragment_count));
  ready_at_.resize(size_t(options.fragment_count));
  past_.resize(size_t(options.fragment_count));
  found_wrong_.resize(size_t(options.fragment_count));
}

Member& FakeTrainer::make_member(const MemberOptions& member_options, const Wrap& wrap) {
  MemberOptions options = member_options;
  options.samples = live_.heard;
  member_ = Member::create(options, *this, states(), live_.step,
                           [this](MemberEvent event) { handle(std::move(event)); });
  if (wrap) member_ = wrap(std::move(member_));
  return *member_;
}

// --- The numbers.

Bytes FakeTrainer::contribution(int64_t fragment, int64_t chunk) {
  if (!is_waiting_[size_t(fragment)]) {
    oracle_.violated(
        fmt::format("{} is asked for a contribution that it did not offer", where(fragment, 0)));
    return {};
  }
  const Bytes payload = frozen_[size_t(fragment)].payloads[size_t(chunk)];
  if (spoiled_left_ == 0) return payload;
  --spoiled_left_;
  auto spoiled = std::make_shared<std::vector<std::byte>>(*payload);
  spoiled->pop_back();
  return spoiled;
}

void FakeTrainer::freeze(size_t fragment) {
  is_waiting_[fragment] = true;
  serials_[fragment] = oracle_.next_serial();
  ready_at_[fragment] = live_.step;
  std::vector<std::vector<std::byte>> chunks;
  for (int64_t chunk = 0; chunk < options_.chunk_count; ++chunk) {
    Encoded encoded{.value = part_of(host_, chunk),
                    .weight = weight_,
                    .base_version = version(int64_t(fragment)),
                    .base_digest = digest_word(int64_t(fragment)),
                    .is_lie = is_absurd_};
    encoded.serials[size_t(host_)] = serials_[fragment];
    chunks.push_back(bytes_of(encoded, options_.padding_bytes));
  }
  frozen_[fragment] = sealed(chunks);
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
  std::vector<PeerId> left_out;
  for (const Part& part : parts) {
    Encoded content;
    std::memcpy(&content, part.encoded().data(), sizeof(content));
    const bool is_in_order = &part == &parts.front() || part.peer > last;
    const bool has_weight = content.weight == part.weight_tokens || !oracle_.are_weights_exact();
    const bool is_twice = (content.hosts() & sum.hosts()) != 0;
    const bool has_base =
        content.base_version == sum.base_version && content.base_digest == sum.base_digest;
    if (!is_in_order || !has_weight || !has_base || is_twice) {
      oracle_.violated(
          fmt::format("{}: part of peer {} of chunk {}: order {} weight {} base {} twice {}",
                      where(fragment, sum.base_version + 1), part.peer, chunk, is_in_order,
                      has_weight, has_base, is_twice));
    }
    last = part.peer;
    if (content.is_lie != 0) {
      left_out.push_back(part.peer);
      continue;
    }
    add(sum, content, part.weight_tokens);
  }
  if (lies_about_sums_) {
    sum.value += uint64_t(chunk + 1);
    sum.is_lie = 1;
  }
  return {bytes_of(sum, options_.result_padding_bytes), std::move(left_out)};
}

// The parts say on which state they are.
std::optional<FragmentStore::Mean> FakeTrainer::repeat(int64_t, uint64_t, int64_t,
                                                       std::span<const Part> parts) {
  ++repeat_count_;
  Encoded sum;
  std::vector<PeerId> left_out;
  for (const Part& part : parts) {
    Encoded content;
    std::memcpy(&content, part.encoded().data(), sizeof(content));
    sum.base_version = content.base_version;
    sum.base_digest = content.base_digest;
    if (content.is_lie != 0) {
      left_out.push_back(part.peer);
    } else {
      add(sum, content, part.weight_tokens);
    }
  }
  if (lies_about_repeats_) sum.is_lie = 2;
  return Mean{bytes_of(sum, options_.result_padding_bytes), std::move(left_out)};
}

void FakeTrainer::falsify(std::vector<std::byte>& payload, uint32_t chunk, uint64_t salt) {
  const bool is_result = payload[0] == std::byte(WantKind::kResult);
  const size_t offset = is_result ? size_t(kResultOffset) : size_t(kStateOffset);
  if (payload.size() < offset + (is_result ? sizeof(Encoded) : sizeof(uint64_t))) return;
  Encoded sum;
  std::memcpy(&sum, payload.data() + offset, is_result ? sizeof(sum) : sizeof(sum.value));
  sum.value += (chunk + 1) * (1 + salt);
  sum.is_lie = 1;
  std::memcpy(payload.data() + offset, &sum, is_result ? sizeof(sum) : sizeof(sum.value));
}

int64_t FakeTrainer::block_count(int64_t) const {
  return base::div_ceil(options_.chunk_count, elements_of_block(options_));
}

FragmentStore::Cut FakeTrainer::cut(int64_t) const {
  return {.elements = options_.chunk_count,
          .chunk_elements = 1,
          .block_elements = elements_of_block(options_)};
}

// The last block may be smaller.
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
    mix(values[i], sum);
  }
  return {};
}

base::Digest FakeTrainer::digest(const TrainerOptions& options, const Checkpoint& checkpoint,
                                 int64_t fragment) {
  const std::vector<base::Digest> all = block_digests(options, checkpoint, fragment);
  return base::sha256(std::as_bytes(std::span(all)));
}

std::vector<base::Digest> FakeTrainer::block_digests(const TrainerOptions& options,
                                                     const Checkpoint& checkpoint,
                                                     int64_t fragment) {
  const std::span<const uint64_t> values = checkpoint.values[size_t(fragment)];
  const auto count = size_t(elements_of_block(options));
  std::vector<base::Digest> digests;
  for (size_t first = 0; first < values.size(); first += count) {
    digests.push_back(
        base::sha256(std::as_bytes(values.subspan(first, std::min(count, values.size() - first)))));
  }
  return digests;
}

std::optional<std::vector<std::byte>> FakeTrainer::digests(int64_t fragment, uint64_t version) {
  if (version != this->version(fragment) || is_changing_[size_t(fragment)]) return std::nullopt;
  const std::vector<base::Digest> all = block_digests(options_, live_, fragment);
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
  if (options_.on_event) options_.on_event(host_, event);
  events_.push_back(std::move(event));
  later(Duration(world_.random().below(uint64_t(Duration(milliseconds(3)).count()))),
        [this](Instant, Outbox&) { handle_next(); });
}

void FakeTrainer::handle_next() {
  // A commit waits until the one before is applied, and what comes after it waits with it.
  const auto* const next = std::get_if<Committed>(&events_.front());
  if (next && is_changing_[size_t(next->fragment)]) {
    ++postponed_count_;
    return;
  }
  const MemberEvent event = std::move(events_.front());
  events_.pop_front();
  if (std::holds_alternative<CatchUpNeeded>(event)) on_catch_up_needed();
  if (const auto* fetched = std::get_if<Fetched>(&event)) on_fetched(*fetched);
  if (const auto* started = std::get_if<Started>(&event)) on_started(*started);
  if (const auto* committed = std::get_if<Committed>(&event)) on_committed(*committed);
  if (const auto* granted = std::get_if<SamplesGranted>(&event)) {
    live_.heard = std::max(live_.heard, granted->first + granted->count);
    if (granted->count > 0) is_asking_ = false;
  }
  if (const auto* standing = std::get_if<StandingChanged>(&event)) {
    contributes_ = standing->contributes;
  }
  if (const auto* stopped = std::get_if<Stopped>(&event)) {
    is_running_ = false;
    stopped_ = *stopped;
    is_done_ |= is_at_end() && stopped->restart_makes_sense;
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
    found_wrong_[size_t(f)] = block_digests(options_, live_, f);
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
  // Further than that from the run there is no round that it could be ready for.
  const uint64_t far = options_.steps_per_round + options_.overlap_steps_max;
  const bool is_far = live_.step > started.step + far;
  if (!is_running_ || is_far) {
    live_.step = started.step;
    synced_at_.assign(synced_at_.size(), live_.step);
  }
  if (is_far) withdraw();
  is_running_ = true;
  if (!is_stepping_) step();
}

void FakeTrainer::on_committed(const Committed& committed) {
  const int64_t f = committed.fragment;
  const Oracle::RoundKey key{.term = options_.has_one_history ? 0 : committed.term,
                             .fragment = f,
                             .round = committed.round};
  commits_.push_back(committed);
  check_results(committed);
  oracle_.saw_commit(key, committed.result_digest);
  is_changing_[size_t(f)] = true;
  later(options_.apply_time, [=, this](Instant now, Outbox& out) {
    const base::Digest before = digest(f);
    std::vector<uint64_t> counted;
    for (size_t chunk = 0; chunk < committed.results.size(); ++chunk) {
      Encoded sum;
      std::memcpy(&sum, committed.results[chunk].encoded().data(), sizeof(sum));
      mix(live_.values[size_t(f)][chunk], sum);
      for (const uint64_t serial : sum.serials) {
        if (serial != 0) counted.push_back(serial << 16 | chunk);
      }
    }
    live_.versions[size_t(f)] = committed.round;
    auto& past = past_[size_t(f)];
    past[committed.round] = committed;
    while (int64_t(past.size()) > options_.results_kept) past.erase(past.begin());
    is_changing_[size_t(f)] = false;
    is_waiting_[size_t(f)] = false;
    // What was not in the round stays, and is brought to the next one.
    if (committed.contributed) synced_at_[size_t(f)] = live_.step;
    oracle_.saw_state(key, before, digest(f), std::move(counted));
    checkpoint_ = live_;
    member_->applied(f, {committed.round, digest(f)}, now, out);
    ask_for_samples(now, out);
    for (; postponed_count_ > 0; --postponed_count_) {
      later(Duration(1), [this](Instant, Outbox&) { handle_next(); });
    }
  });
}

// Two histories never lead to one value.
void FakeTrainer::mix(uint64_t& value, const Encoded& sum) {
  value = value * 6364136223846793005 + sum.value + 1;
  for (const uint64_t serial : sum.serials) value = (value ^ serial) * 1442695040888963407;
}

void FakeTrainer::ask_for_samples(Instant now, Outbox& out) {
  if (!options_.asks_for_samples || is_asking_) return;
  is_asking_ = true;
  member_->need_samples(options_.steps_per_round, now, out);
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
    Encoded sum;
    std::memcpy(&sum, committed.results[chunk].encoded().data(), sizeof(sum));
    check_result(committed, chunk, sum);
    in_any |= sum.hosts();
  }
  if (int64_t(committed.members.size()) != std::popcount(in_any)) {
    oracle_.violated(fmt::format("{} names {} members", place, committed.members.size()));
  }
}

void FakeTrainer::check_result(const Committed& committed, size_t chunk, const Encoded& sum) {
  if (sum.is_lie != 0) return;
  const int64_t f = committed.fragment;
  const Part& part = committed.results[chunk];
  uint64_t mask = 0, judged_out = 0;
  std::memcpy(&mask, part.bytes->data() + 1, sizeof(mask));
  std::memcpy(&judged_out, part.bytes->data() + 1 + sizeof(mask), sizeof(judged_out));
  const uint64_t hosts = sum.hosts();
  const int64_t weight = 1000 * std::popcount(hosts) + int64_t(hosts);
  const bool is_legal = sum.value == hosts * (chunk + 1) && hosts != 0;
  const bool has_weight = sum.weight == part.weight_tokens &&
                          (sum.weight == weight || sum.weight == 0 || weight_ != weight_of(host_) ||
                           !oracle_.are_weights_exact());
  const bool has_count = std::popcount(mask) == std::popcount(hosts);
  const bool has_base =
      sum.base_version + 1 == committed.round && sum.base_digest == digest_word(f);
  // What we are told is counted; what we are not told is not, or it would be brought again.
  const uint64_t ours = sum.serials[size_t(host_)];
  const bool is_new = is_waiting_[size_t(f)] && ours == serials_[size_t(f)];
  // A subtotal that is left out takes all with it that are in it.
  const bool may_be_out = was_spoiled_ || std::popcount(judged_out) > 1;
  const bool has_ours = committed.has_ours[chunk] != 0 ? ours != 0 || may_be_out : !is_new;
  if (is_legal && has_weight && has_count && has_base && has_ours) return;
  oracle_.violated(
      fmt::format("{}: chunk {} has value {} and weight {} (said: {}) of contributors {:x}, base "
                  "{}, ours {}",
                  where(f, committed.round), chunk, sum.value, sum.weight, part.weight_tokens, mask,
                  has_base, has_ours));
}

void FakeTrainer::leave(const std::string& reason) {
  world_.call(host_, [this, reason](Instant now, Outbox& out) {
    is_running_ = false;
    member_->leave(reason, now, out);
  });
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

bool FakeTrainer::is_all_synced() const {
  for (size_t f = 0; f < is_waiting_.size(); ++f) {
    if (is_waiting_[f] || is_changing_[f] || synced_at_[f] < live_.step) return false;
  }
  return true;
}

void FakeTrainer::step() {
  is_stepping_ = true;
  const auto micros = uint64_t(options_.step_time.count() / 1000);
  const Duration duration =
      std::chrono::microseconds(micros + world_.random().below(micros / 5 + 1));
  later(duration, [this](Instant now, Outbox& out) {
    is_stepping_ = false;
    if (!is_running_) return;
    // Others may have gone before the last rounds, and those who are left may lack what they need.
    if (is_at_end() && (is_all_synced() || ++waited_at_end_ > kEndPatience)) {
      is_done_ = true;
      return leave(kDoneReason);
    }
    held_count_ = is_held_up() && !is_at_end() ? held_count_ + 1 : 0;
    if (held_count_ == 0 && !is_at_end()) {
      ++live_.step;
      member_->progress(live_.step, 1.0f);
    }
    for (size_t f = 0; f < is_waiting_.size(); ++f) {
      const uint64_t start = f * options_.steps_per_round / is_waiting_.size();
      if (is_waiting_[f] || is_changing_[f]) continue;
      const bool is_due = is_at_end() ? synced_at_[f] < live_.step
                                      : live_.step >= synced_at_[f] + options_.steps_per_round +
                                                          (version(int64_t(f)) == 0 ? start : 0);
      // Two that wait for each other's fragments meet where both have said all.
      if (!is_due && held_count_ != kHeldPatience) continue;
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
