// The host needs a machine before it listens, and the member must know the port before it
// introduces itself: so the machine that the host runs is this object, which passes everything on
// to a member, or a peer, that it makes in between.
#include "net/swarm.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <utility>

#include "net/peer.h"

namespace net {
namespace {

// A trainer that does not listen for so long misses reports of membership, and nothing else.
constexpr size_t kEventsMax = 4096;
// Most of the others have said that they know of it by then.
constexpr Duration kHandoverMax = std::chrono::seconds(2);

// Where a node's own port is dialled by itself. What it advertises is only that if its operator
// names it as the run's coordinator, too: it may be wrong, and belong to another node.
std::vector<Endpoint> own_endpoints(const HostOptions& host, const MemberOptions& member,
                                    uint16_t port) {
  std::vector<Endpoint> own = {{"127.0.0.1", port}, {"localhost", port}};
  own.push_back({host.listen.host, port});
  if (member.advertise == member.coordinator) own.push_back(member.advertise);
  return own;
}

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
              std::vector<FragmentState> states, uint64_t step,
              std::optional<CoordinatorOptions> standby)
      : host_(Host::create(host, *this)) {
    const uint16_t port = host_->listening_on().port;
    if (member.advertise.port == 0) member.advertise.port = port;
    if (standby) member.own = own_endpoints(host, member, port);
    member_ = Member::create(member, store, std::move(states), step,
                             [this](MemberEvent event) { events_.push(std::move(event)); });
    if (standby) stand_by(host, member, std::move(*standby));
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
    host_->post([=, this](Instant now, Outbox& out) {
      member_->leave(reason, now, out);
      note_handover();
    });
    if (peer_ != nullptr) handed_over_.get_future().wait_for(kHandoverMax);
  }

  std::optional<MemberEvent> wait(Duration patience) override { return events_.pop(patience); }

  int64_t bytes_sent() const override { return host_->bytes_sent(); }
  int64_t bytes_received() const override { return host_->bytes_received(); }

 private:
  void stand_by(const HostOptions& host, const MemberOptions& member, CoordinatorOptions standby) {
    standby.identity = member.node_key;
    if (std::ranges::find(member.own, member.coordinator) == member.own.end())
      standby.home = member.coordinator;
    auto peer = Peer::create({.run_name = member.run_name,
                              .node = host.security ? host.security->key.id() : NodeId{},
                              .identity = member.node_key,
                              .own = member.own},
                             std::move(member_), Coordinator::create(standby));
    peer_ = peer.get();
    member_ = std::move(peer);
  }
  // The loop thread, after each call that could end it.
  void note_handover() {
    if (peer_ == nullptr || has_handed_over_ || !peer_->has_left()) return;
    has_handed_over_ = true;
    handed_over_.set_value();
  }

  void on_start(Instant now, Outbox& out) override { member_->on_start(now, out); }
  void on_link_open(LinkId link, bool incoming, const Remote& remote, Instant now,
                    Outbox& out) override {
    member_->on_link_open(link, incoming, remote, now, out);
  }
  void on_link_closed(LinkId link, const std::string& reason, Instant now, Outbox& out) override {
    member_->on_link_closed(link, reason, now, out);
    note_handover();
  }
  void on_message(LinkId link, const Message& message, Instant now, Outbox& out) override {
    member_->on_message(link, message, now, out);
    note_handover();
  }
  void on_drained(LinkId link, Instant now, Outbox& out) override {
    member_->on_drained(link, now, out);
  }
  void on_tick(Instant now, Outbox& out) override {
    member_->on_tick(now, out);
    note_handover();
  }

  EventQueue events_;
  std::unique_ptr<Member> member_;
  Peer* peer_ = nullptr;  // The same, if it is one.
  std::promise<void> handed_over_;
  bool has_handed_over_ = false;
  std::unique_ptr<Host> host_;  // Last, so that its thread ends before what it calls.
};

}  // namespace

std::unique_ptr<Swarm> Swarm::join(const HostOptions& host, const MemberOptions& member,
                                   FragmentStore& store, std::vector<FragmentState> states,
                                   uint64_t step, std::optional<CoordinatorOptions> standby) {
  return std::make_unique<HostedSwarm>(host, member, store, std::move(states), step,
                                       std::move(standby));
}

}  // namespace net
