// The host needs a machine before it listens, and the member must know the port before it
// introduces itself: so the machine that the host runs is this object, which passes everything on
// to a member that it makes in between.
#include "net/swarm.h"

#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <utility>

namespace net {
namespace {

// A trainer that does not listen for so long misses reports of membership, and nothing else.
constexpr size_t kEventsMax = 4096;

// Events wait here for the trainer.
class EventQueue {
 public:
  void push(MemberEvent event) {
    const std::lock_guard lock(mutex_);
    if (events_.size() >= kEventsMax && std::holds_alternative<MembershipChanged>(event)) return;
    events_.push_back(std::move(event));
    changed_.notify_one();
  }

  std::optional<MemberEvent> pop(Duration patience) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, patience, [&] { return !events_.empty(); })) return std::nullopt;
    MemberEvent event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<MemberEvent> events_;
};

class HostedSwarm final : public Swarm, private Machine {
 public:
  HostedSwarm(const HostOptions& host, MemberOptions member, FragmentStore& store,
              std::vector<FragmentState> states, uint64_t step)
      : host_(Host::create(host, *this)) {
    if (member.advertise.port == 0) member.advertise.port = host_->listening_on().port;
    member_ = Member::create(member, store, std::move(states), step,
                             [this](MemberEvent event) { events_.push(std::move(event)); });
    host_->start();
  }

  void ready(int64_t fragment, int64_t weight_tokens, uint64_t step) override {
    std::promise<void> heard;
    const bool must_be_heard = weight_tokens < 0;
    host_->post([=, this, &heard](Instant now, Outbox& out) {
      member_->ready(fragment, weight_tokens, step, now, out);
      if (must_be_heard) heard.set_value();
    });
    if (must_be_heard) heard.get_future().wait();
  }
  void begin_fetch() override {
    host_->post([this](Instant now, Outbox& out) { member_->begin_fetch(now, out); });
  }
  void synced(std::vector<FragmentState> states) override {
    host_->post([this, states = std::move(states)](Instant now, Outbox& out) {
      member_->synced(states, now, out);
    });
  }
  void applied(int64_t fragment, const FragmentState& state) override {
    host_->post(
        [=, this](Instant now, Outbox& out) { member_->applied(fragment, state, now, out); });
  }
  void progress(uint64_t step, float loss) override {
    host_->post([=, this](Instant, Outbox&) { member_->progress(step, loss); });
  }
  void need_samples(uint64_t count) override {
    host_->post([=, this](Instant now, Outbox& out) { member_->need_samples(count, now, out); });
  }
  void leave(const std::string& reason) override {
    host_->post([=, this](Instant now, Outbox& out) { member_->leave(reason, now, out); });
  }

  std::optional<MemberEvent> wait(Duration patience) override { return events_.pop(patience); }

  int64_t bytes_sent() const override { return host_->bytes_sent(); }
  int64_t bytes_received() const override { return host_->bytes_received(); }

 private:
  void on_start(Instant now, Outbox& out) override { member_->on_start(now, out); }
  void on_link_open(LinkId link, bool incoming, const Remote& remote, Instant now,
                    Outbox& out) override {
    member_->on_link_open(link, incoming, remote, now, out);
  }
  void on_link_closed(LinkId link, const std::string& reason, Instant now, Outbox& out) override {
    member_->on_link_closed(link, reason, now, out);
  }
  void on_message(LinkId link, const Message& message, Instant now, Outbox& out) override {
    member_->on_message(link, message, now, out);
  }
  void on_drained(LinkId link, Instant now, Outbox& out) override {
    member_->on_drained(link, now, out);
  }
  void on_tick(Instant now, Outbox& out) override { member_->on_tick(now, out); }

  EventQueue events_;
  std::unique_ptr<Member> member_;
  std::unique_ptr<Host> host_;  // Last, so that its thread ends before what it calls.
};

}  // namespace

std::unique_ptr<Swarm> Swarm::join(const HostOptions& host, const MemberOptions& member,
                                   FragmentStore& store, std::vector<FragmentState> states,
                                   uint64_t step) {
  return std::make_unique<HostedSwarm>(host, member, store, std::move(states), step);
}

}  // namespace net
