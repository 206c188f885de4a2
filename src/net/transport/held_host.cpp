// The machine that the real host runs is this object: it stands between that host and the machine
// that it is for, in both directions.
#include "net/transport/held_host.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "net/transport/held_line.h"
#include "net/wake_up.h"

namespace net {
namespace {

constexpr const char* kCutReason = "cut by node.rehearse";
// For a byte of a frame, with the headers of TCP/IP on packets of 1500 bytes, TLS's records, and
// what is sent again now and then.
constexpr double kBytesOnTheWire = 1.05;

class HeldHost final : public Host, private Machine, private Outbox {
 public:
  struct Lines {
    HeldLine up, down;
    Duration cut_every{};
  };
  // `options` are those of the host beneath.
  HeldHost(Lines lines, const HostOptions& options, Machine& machine)
      : cut_every_(lines.cut_every),
        machine_(machine),
        up_(std::move(lines.up)),
        down_(std::move(lines.down)),
        host_(Host::create(options, *this)) {}

  // What is held is let go, so that the last words still get out.
  ~HeldHost() override {
    host_->post([this](Instant, Outbox& out) {
      while (const auto parcel = up_.take(Instant::max() / 2)) pass_out(*parcel, out);
    });
    host_.reset();
  }

  Endpoint listening_on() const override { return host_->listening_on(); }
  void start() override { host_->start(); }
  void post(Call call) override {
    host_->post([this, call = std::move(call)](Instant now, Outbox& out) {
      enter(now, out, [&] { call(now, *this); });
    });
  }
  int64_t bytes_sent() const override { return host_->bytes_sent(); }
  int64_t bytes_received() const override { return host_->bytes_received(); }

 private:
  // Machine, for the host.
  void on_start(Instant now, Outbox& out) override {
    last_cut_ = now;
    enter(now, out, [&] { machine_.on_start(now, *this); });
  }
  void on_link_open(LinkId link, bool incoming, const Remote& remote, Instant now,
                    Outbox& out) override {
    links_.insert(link);
    if (ending_.contains(link)) return;
    enter(now, out, [&] { machine_.on_link_open(link, incoming, remote, now, *this); });
  }
  void on_link_closed(LinkId link, const std::string& reason, Instant now, Outbox& out) override {
    up_.forget(link);
    links_.erase(link);
    above_half_.erase(link);
    if (ending_.erase(link) == 0) down_.put({link, HeldLine::End{reason}}, now);
    settle(now, out);
  }
  void on_message(LinkId link, const Message& message, Instant now, Outbox& out) override {
    if (!ending_.contains(link)) down_.put({link, message}, now);
    settle(now, out);
  }
  void on_drained(LinkId, Instant now, Outbox& out) override { settle(now, out); }
  void on_tick(Instant now, Outbox& out) override {
    if (cut_every_ > Duration{0} && now - last_cut_ >= cut_every_) cut(now, out);
    if (now < wake_up_.at()) return settle(now, out);
    now_ = now;
    out_ = &out;
    wake_up_.begin_tick();
    machine_.on_tick(now, *this);
    settle(now, out);
  }

  // Outbox, for the machine.
  LinkId connect(const Endpoint& endpoint) override {
    wake_up_.review(now_);
    const LinkId link = out_->connect(endpoint);
    links_.insert(link);
    return link;
  }
  void send(LinkId link, Message message) override {
    wake_up_.review(now_);
    if (!links_.contains(link) || ending_.contains(link)) return;
    up_.put({link, std::move(message)}, now_);
    if (queued_bytes(link) > kQueuedBytesMax / 2) above_half_.insert(link);
  }
  void close(LinkId link) override {
    wake_up_.review(now_);
    above_half_.erase(link);
    down_.forget(link);
    if (!links_.contains(link)) return out_->close(link);
    if (ending_.insert(link).second) up_.put({link, HeldLine::End{}}, now_);
  }
  int64_t queued_bytes(LinkId link) const override {
    return up_.queued_bytes(link) + out_->queued_bytes(link);
  }
  int64_t all_queued_bytes() const override {
    return up_.queued_bytes() + out_->all_queued_bytes();
  }
  void wake_at(Instant at) override { wake_up_.ask(at, now_); }
  void start(Job job) override {
    wake_up_.review(now_);
    out_->start({std::move(job.work), [this, done = std::move(job.done)](Instant now, Outbox& out) {
                   enter(now, out, [&] { done(now, *this); });
                 }});
  }

  // The machine's turn, in which it may use the outbox.
  template <class Body>
  void enter(Instant now, Outbox& out, const Body& body) {
    now_ = now;
    out_ = &out;
    body();
    wake_up_.review(now);
    settle(now, out);
  }

  // Passes on whatever has come to its end of the line.
  void settle(Instant now, Outbox& out) {
    now_ = now;
    out_ = &out;
    for (bool is_moving = true; is_moving;) {
      is_moving = false;
      while (const auto parcel = up_.take(now)) pass_out(*parcel, out);
      tell_drained(now);
      if (const auto parcel = down_.take(now)) {
        pass_in(*parcel, now);
        is_moving = true;
      }
    }
    for (const auto& next : {up_.next(), down_.next()}) {
      if (next) out.wake_at(*next);
    }
    if (cut_every_ > Duration{0}) out.wake_at(last_cut_ + cut_every_);
    if (wake_up_.at() != Instant::max()) out.wake_at(wake_up_.at());
  }

  void pass_out(const HeldLine::Parcel& parcel, Outbox& out) {
    if (const auto* message = std::get_if<Message>(&parcel.what)) {
      return out.send(parcel.link, *message);
    }
    ending_.erase(parcel.link);
    links_.erase(parcel.link);
    out.close(parcel.link);
  }

  void pass_in(const HeldLine::Parcel& parcel, Instant now) {
    wake_up_.review(now);
    if (const auto* message = std::get_if<Message>(&parcel.what)) {
      machine_.on_message(parcel.link, *message, now, *this);
    } else {
      machine_.on_link_closed(parcel.link, std::get<HeldLine::End>(parcel.what).reason, now, *this);
    }
  }

  void tell_drained(Instant now) {
    const std::set<LinkId> above = above_half_;
    for (const LinkId link : above) {
      if (queued_bytes(link) > kQueuedBytesMax / 2 || above_half_.erase(link) == 0) continue;
      wake_up_.review(now);
      machine_.on_drained(link, now, *this);
    }
  }

  void cut(Instant now, Outbox& out) {
    last_cut_ = now;
    above_half_.clear();
    for (const LinkId link : std::exchange(links_, {})) {
      up_.forget(link);
      down_.forget(link);
      out.close(link);
      if (ending_.erase(link) == 0) down_.put({link, HeldLine::End{kCutReason}}, now);
    }
  }

  const Duration cut_every_;
  Machine& machine_;
  // The loop thread's.
  HeldLine up_, down_;
  std::set<LinkId> links_;       // That the host knows.
  std::set<LinkId> ending_;      // That the machine has closed, and the host not yet.
  std::set<LinkId> above_half_;  // Whose machine waits for on_drained.
  WakeUp wake_up_;               // The machine's.
  Instant now_{}, last_cut_{};
  Outbox* out_ = nullptr;  // The host's, in the call that is going on.

  std::unique_ptr<Host> host_;  // Last: its thread uses the rest.
};

}  // namespace

// A cap is beneath a rehearsal: it is the real line's.
std::unique_ptr<Host> make_held_host(const HostOptions& options, Machine& machine) {
  HostOptions beneath = options;
  const RehearsalOptions rehearsal = options.rehearsal;
  if (rehearsal.is_on()) {
    beneath.rehearsal = {};
    return std::make_unique<HeldHost>(
        HeldHost::Lines{.up = HeldLine(rehearsal.bytes_per_second, rehearsal.delay),
                        .down = HeldLine(rehearsal.bytes_per_second, Duration{0}),
                        .cut_every = rehearsal.cut_every},
        beneath, machine);
  }
  beneath.uplink_bytes_per_second = 0;
  beneath.socket_bytes_per_second = options.uplink_bytes_per_second;
  const double payload_rate = options.uplink_bytes_per_second / kBytesOnTheWire;
  return std::make_unique<HeldHost>(
      HeldHost::Lines{.up = HeldLine(payload_rate, Duration{0}, HeldLine::Holds::kChunks),
                      .down = HeldLine(0, Duration{0})},
      beneath, machine);
}

}  // namespace net
