#include "net/peer.h"

#include <algorithm>
#include <deque>
#include <map>
#include <set>

#include "net/peer/inner_link.h"
#include "net/probe.h"
#include "net/turn.h"

namespace net {
namespace {

class PeerMachine final : public Peer {
 public:
  PeerMachine(Options options, std::unique_ptr<Member> member,
              std::unique_ptr<Coordinator> coordinator)
      : options_(std::move(options)),
        member_(std::move(member)),
        coordinator_(std::move(coordinator)) {}

  void on_start(Instant now, Outbox& out) override {
    act(now, out, [&] {
      coordinator_->on_start(now, coordinator_side_);
      member_->on_start(now, member_side_);
    });
  }
  void on_link_open(LinkId link, bool incoming, const Remote& remote, Instant now,
                    Outbox& out) override;
  void on_link_closed(LinkId link, const std::string& reason, Instant now, Outbox& out) override;
  void on_message(LinkId link, const Message& message, Instant now, Outbox& out) override;
  void on_drained(LinkId link, Instant now, Outbox& out) override {
    act(now, out, [&] {
      if (!coordinators_.contains(link)) member_->on_drained(link, now, member_side_);
    });
  }
  void on_tick(Instant now, Outbox& out) override {
    act(now, out, [&] {
      member_->on_tick(now, member_side_);
      if (const auto elsewhere = followed_elsewhere(); !elsewhere.empty())
        coordinator_->redirect(elsewhere, now, coordinator_side_);
      coordinator_->on_tick(now, coordinator_side_);
    });
  }

  void ready(int64_t fragment, int64_t weight_tokens, uint64_t step, Instant now,
             Outbox& out) override {
    act(now, out, [&] { member_->ready(fragment, weight_tokens, step, now, member_side_); });
  }
  void begin_fetch(Instant now, Outbox& out) override {
    act(now, out, [&] { member_->begin_fetch(now, member_side_); });
  }
  void synced(std::vector<FragmentState> states, Instant now, Outbox& out) override {
    act(now, out, [&] { member_->synced(std::move(states), now, member_side_); });
  }
  void applied(int64_t fragment, const FragmentState& state, Instant now, Outbox& out) override {
    act(now, out, [&] { member_->applied(fragment, state, now, member_side_); });
  }
  void progress(uint64_t step, float loss) override { member_->progress(step, loss); }
  void need_samples(uint64_t count, Instant now, Outbox& out) override {
    act(now, out, [&] { member_->need_samples(count, now, member_side_); });
  }
  void leave(const std::string& reason, Instant now, Outbox& out) override {
    is_leaving_ = true;
    act(now, out, [&] { member_->leave(reason, now, member_side_); });
    act(now, out, [&] { coordinator_->retire(now, coordinator_side_); });
  }
  std::vector<Redirect> followed() const override { return member_->followed(); }

  const Coordinator& coordinator() const override { return *coordinator_; }
  bool has_left() const override { return is_leaving_ && !coordinator_->is_coordinating(); }

 private:
  // What one of the two does to the world. The other one, if it is its own.
  class Side : public Outbox {
   public:
    Side(PeerMachine& peer, bool is_member) : peer_(peer), is_member_(is_member) {}
    LinkId connect(const Endpoint& endpoint) override {
      const auto& own = peer_.options_.own;
      const bool is_own = std::ranges::find(own, endpoint) != own.end();
      if (is_member_ && is_own) return peer_.inner_.connect();
      const LinkId link = peer_.out_->connect(endpoint);
      if (!is_member_) peer_.coordinators_.insert(link);
      return link;
    }
    void send(LinkId link, Message message) override {
      if (InnerLink::is_inner(link)) return peer_.inner_.send(link, std::move(message));
      peer_.out_->send(link, std::move(message));
    }
    void close(LinkId link) override {
      if (InnerLink::is_inner(link)) {
        return peer_.inner_.close(link);
      }
      peer_.coordinators_.erase(link);
      peer_.out_->close(link);
    }
    int64_t queued_bytes(LinkId link) const override {
      return InnerLink::is_inner(link) ? 0 : peer_.out_->queued_bytes(link);
    }
    int64_t all_queued_bytes() const override { return peer_.out_->all_queued_bytes(); }
    void wake_at(Instant at) override { peer_.out_->wake_at(at); }
    void start(Job job) override {
      peer_.out_->start({.work = std::move(job.work),
                         .done = [this, done = std::move(job.done)](Instant now, Outbox& out) {
                           peer_.act(now, out, [&] { done(now, *this); });
                         }});
    }

   private:
    PeerMachine& peer_;
    const bool is_member_;
  };

  // Both act only inside of a call, and what one says to the other is heard at its end.
  template <class Call>
  void act(Instant now, Outbox& out, Call call) {
    out_ = &out;
    call();
    while (const auto event = inner_.next()) hear(*event, now);
    out_ = nullptr;
  }
  // The coordinator that our member follows, if it is not ours.
  std::vector<Redirect> followed_elsewhere() const {
    auto followed = member_->followed();
    const bool is_ours = !followed.empty() && followed.front().node_key == options_.identity;
    return is_ours ? std::vector<Redirect>{} : followed;
  }
  void hear(const InnerLink::Event& event, Instant now);
  void welcome_stranger(LinkId link, const Message& message, Instant now);
  void redirect(LinkId link, const std::vector<Redirect>& places);

  const Options options_;
  const std::unique_ptr<Member> member_;
  const std::unique_ptr<Coordinator> coordinator_;
  Side member_side_{*this, true};
  Side coordinator_side_{*this, false};
  Outbox* out_ = nullptr;  // During a call.
  InnerLink inner_;
  std::map<LinkId, Remote> strangers_;  // Incoming links that have said nothing yet.
  std::set<LinkId> coordinators_;       // Links of the coordinator; all others are the member's.
  bool is_leaving_ = false;
};

void PeerMachine::on_link_open(LinkId link, bool incoming, const Remote& remote, Instant now,
                               Outbox& out) {
  if (incoming) {
    strangers_[link] = remote;
    return;
  }
  act(now, out, [&] {
    if (coordinators_.contains(link)) {
      coordinator_->on_link_open(link, false, remote, now, coordinator_side_);
    } else {
      member_->on_link_open(link, false, remote, now, member_side_);
    }
  });
}

void PeerMachine::on_link_closed(LinkId link, const std::string& reason, Instant now, Outbox& out) {
  if (strangers_.erase(link) > 0) return;
  act(now, out, [&] {
    if (coordinators_.erase(link) > 0) {
      coordinator_->on_link_closed(link, reason, now, coordinator_side_);
    } else {
      member_->on_link_closed(link, reason, now, member_side_);
    }
  });
}

void PeerMachine::on_message(LinkId link, const Message& message, Instant now, Outbox& out) {
  act(now, out, [&] {
    if (strangers_.contains(link)) return welcome_stranger(link, message, now);
    if (coordinators_.contains(link)) {
      coordinator_->on_message(link, message, now, coordinator_side_);
    } else {
      member_->on_message(link, message, now, member_side_);
    }
  });
}

void PeerMachine::welcome_stranger(LinkId link, const Message& message, Instant now) {
  const Remote remote = strangers_.extract(link).mapped();
  if (message.type != MessageType::kHello && message.type != MessageType::kRedirect) {
    member_->on_link_open(link, true, remote, now, member_side_);
    member_->on_message(link, message, now, member_side_);
    return;
  }
  const auto elsewhere = followed_elsewhere();
  probe<"a node sends another to its coordinator">(!elsewhere.empty());
  if (!elsewhere.empty()) return redirect(link, elsewhere);  // Who says Redirect does not listen.
  if (is_leaving_) return out_->close(link);
  coordinators_.insert(link);
  coordinator_->on_link_open(link, true, remote, now, coordinator_side_);
  coordinator_->on_message(link, message, now, coordinator_side_);
}

void PeerMachine::redirect(LinkId link, const std::vector<Redirect>& places) {
  for (const Redirect& place : places) {
    out_->send(link, {.type = MessageType::kRedirect,
                      .run = run_hash(options_.run_name),
                      .payload = encode(place)});
  }
  out_->close(link);
}

void PeerMachine::hear(const InnerLink::Event& event, Instant now) {
  const Remote us{.endpoint = {"127.0.0.1", options_.own.front().port}, .node = options_.node};
  Machine& machine = event.is_members ? static_cast<Machine&>(*member_) : *coordinator_;
  Outbox& side = event.is_members ? member_side_ : coordinator_side_;
  switch (event.kind) {
    case InnerLink::Event::Kind::kOpen:
      return machine.on_link_open(event.link, !event.is_members, us, now, side);
    case InnerLink::Event::Kind::kMessage:
      return machine.on_message(event.link, event.message, now, side);
    case InnerLink::Event::Kind::kClosed:
      return machine.on_link_closed(event.link, "the other side closed it", now, side);
  }
}

}  // namespace

std::unique_ptr<Peer> Peer::create(Options options, std::unique_ptr<Member> member,
                                   std::unique_ptr<Coordinator> coordinator) {
  return std::make_unique<PeerMachine>(std::move(options), std::move(member),
                                       std::move(coordinator));
}

}  // namespace net
