#include "net/sample_node.h"

#include <algorithm>
#include <cstring>

#include "net/frozen.h"

namespace net {

using std::chrono::milliseconds;

SampleNode::SampleNode(World& world, HostId host, uint64_t batch, Disk disk)
    : world_(world),
      host_(host),
      batch_(batch),
      live_(disk),
      disk_(std::move(disk)),
      synced_step_(live_.step) {}

Member& SampleNode::make_member(MemberOptions options) {
  options.samples = live_.heard;
  const auto queue = [this](MemberEvent event) {
    later(milliseconds(1), [this, event = std::move(event)](Instant, Outbox&) { handle(event); });
  };
  member_ = Member::create(options, *this, {fragment_state()}, live_.step, queue);
  return *member_;
}

SampleNode::Mean SampleNode::reduce(int64_t, int64_t, std::span<const Part> parts) {
  std::vector<std::byte> all;
  for (const Part& part : parts) {
    const auto encoded = part.encoded();
    all.insert(all.end(), encoded.begin(), encoded.end());
  }
  return {.encoded = std::move(all), .left_out = {}};
}

Bytes SampleNode::contribution(int64_t, int64_t) {
  return sealed({bytes_of(progress_)}).payloads.front();
}

base::Digest SampleNode::contribution_root(int64_t) const {
  return sealed({bytes_of(progress_)}).root;
}

std::vector<std::byte> SampleNode::bytes_of(const std::vector<uint64_t>& numbers) {
  const auto bytes = std::as_bytes(std::span(numbers));
  return {bytes.begin(), bytes.end()};
}

std::vector<uint64_t> SampleNode::numbers_of(std::span<const std::byte> bytes) {
  std::vector<uint64_t> numbers(bytes.size() / sizeof(uint64_t));
  if (!numbers.empty()) std::memcpy(numbers.data(), bytes.data(), bytes.size());
  return numbers;
}

void SampleNode::later(Duration delay, std::function<void(Instant, Outbox&)> call) {
  world_.after(delay, [this, is_alive = std::weak_ptr(is_alive_), call = std::move(call)] {
    if (is_alive.expired() || !world_.is_on(host_)) return;
    world_.call(host_, [is_alive, call](Instant now, Outbox& out) {
      if (!is_alive.expired()) call(now, out);
    });
  });
}

void SampleNode::handle(const MemberEvent& event) {
  std::visit([this](const auto& kind) { on_event(kind); }, event);
}

// Whoever has just been started cannot know what became of what its checkpoint has left; nor can
// one that was cut off in a round know whether its part is in the result.
void SampleNode::on_event(const CatchUpNeeded&) {
  if (is_waiting_) progress_.clear();
  is_running_ = is_waiting_ = false;
  if (is_joining_) live_.left.clear();
  later(milliseconds(2), [this](Instant now, Outbox& out) { member_->begin_fetch(now, out); });
}

void SampleNode::on_event(const Fetched& fetched) {
  live_.version = fetched.expected[0].version;
  const base::Digest& expected = fetched.expected[0].digest;
  const bool is_verified = expected.is_zero() || expected == fragment_state().digest;
  later(milliseconds(2), [this, is_verified](Instant now, Outbox& out) {
    is_verified ? member_->synced({fragment_state()}, now, out) : member_->begin_fetch(now, out);
  });
}

void SampleNode::on_event(const Started& started) {
  std::erase_if(live_.left, [&](uint64_t sample) { return sample < started.samples_void_below; });
  if (started.step > live_.step) live_.step = synced_step_ = started.step;
  is_joining_ = false;
  is_running_ = true;
  step_later();
}

void SampleNode::on_event(const SamplesGranted& granted) {
  live_.heard = std::max(live_.heard, granted.first + granted.count);
  if (granted.count > 0) is_asking_ = false;
  for (uint64_t i = 0; i < granted.count; ++i) live_.left.push_back(granted.first + i);
}

void SampleNode::on_event(const Committed& committed) {
  const auto trained = numbers_of(committed.results[0].encoded());
  live_.state.insert(live_.state.end(), trained.begin(), trained.end());
  live_.version = committed.round;
  live_.step = std::max(live_.step, committed.step);
  if (committed.contributed) {
    progress_.clear();
    is_waiting_ = false;
    synced_step_ = live_.step;
    disk_ = live_;
  }
  later(milliseconds(2), [this, contributed = committed.contributed](Instant now, Outbox& out) {
    member_->applied(0, fragment_state(), now, out);
    if (!contributed && is_waiting_) member_->ready(0, 1, live_.step, now, out);
    step_later();
  });
}

void SampleNode::step_later() {
  if (is_stepping_) return;
  is_stepping_ = true;
  later(milliseconds(80 + world_.random().below(40)), [this](Instant now, Outbox& out) {
    is_stepping_ = false;
    if (!is_running_) return;
    step(now, out);
    step_later();
  });
}

void SampleNode::step(Instant now, Outbox& out) {
  const uint64_t ask = kStepsPerRound * batch_;
  if (!is_asking_ && live_.left.size() <= ask / 2) {
    is_asking_ = true;
    member_->need_samples(ask, now, out);
  }
  if (is_waiting_ || live_.left.size() < batch_) return;
  for (uint64_t i = 0; i < batch_; ++i) {
    progress_.push_back(live_.left.front());
    live_.left.pop_front();
  }
  ++live_.step;
  member_->progress(live_.step, 1.0f);
  if (live_.step < synced_step_ + kStepsPerRound) return;
  is_waiting_ = true;
  member_->ready(0, 1, live_.step, now, out);
}

}  // namespace net
