// The machine that the real host runs is this object: it stands between that host and the machine
// that it is for, in both directions.
#include "net/transport/rehearsal.h"

#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "base/thread.h"
#include "net/transport/held_line.h"

namespace net {
namespace {

constexpr const char* kCutReason = "cut by node.rehearse";

// Calls back at a time; the machine's ticks are too far apart for a line.
class Alarm {
 public:
  explicit Alarm(std::function<void()> ring) : ring_(std::move(ring)), thread_([this] { run(); }) {}
  ~Alarm() { stop(); }

  // Once, and in place of what was set before. Nothing: not at all.
  void set(std::optional<Instant> time) {
    const std::lock_guard lock(mutex_);
    time_ = time;
    changed_.notify_one();
  }
  // It does not ring after that.
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      is_stopped_ = true;
      changed_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
  }

 private:
  void run() {
    base::set_thread_name("atoll-rehearse");
    std::unique_lock lock(mutex_);
    while (!is_stopped_) {
      if (!time_) {
        changed_.wait(lock);
        continue;
      }
      const std::chrono::steady_clock::time_point time(*time_);
      if (std::chrono::steady_clock::now() < time) {
        changed_.wait_until(lock, time);
        continue;
      }
      time_.reset();
      lock.unlock();
      ring_();
      lock.lock();
    }
  }

  std::function<void()> ring_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Instant> time_;
  bool is_stopped_ = false;
  std::thread thread_;  // Last: it uses the rest.
};

class RehearsalHost final : public Host, private Machine, private Outbox {
 public:
  RehearsalHost(const HostOptions& options, Machine& machine)
      : cut_every_(options.rehearsal.cut_every),
        machine_(machine),
        up_(options.rehearsal.bytes_per_second, options.rehearsal.delay),
        down_(options.rehearsal.bytes_per_second, Duration{0}),
        host_(Host::create(without_rehearsal(options), *this)),
        alarm_([this] { host_->post([this](Instant now, Outbox& out) { settle(now, out); }); }) {}

  // What is held is let go, so that the last words still get out.
  ~RehearsalHost() override {
    alarm_.stop();
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
  static HostOptions without_rehearsal(HostOptions options) {
    options.rehearsal = {};
    return options;
  }

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
    enter(now, out, [&] { machine_.on_tick(now, *this); });
  }

  // Outbox, for the machine.
  LinkId connect(const Endpoint& endpoint) override {
    const LinkId link = out_->connect(endpoint);
    links_.insert(link);
    return link;
  }
  void send(LinkId link, Message message) override {
    if (!links_.contains(link) || ending_.contains(link)) return;
    up_.put({link, std::move(message)}, now_);
    if (queued_bytes(link) > kQueuedBytesMax / 2) above_half_.insert(link);
  }
  void close(LinkId link) override {
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
  void start(Job job) override {
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
    std::optional<Instant> next = up_.next();
    if (const auto down = down_.next()) next = std::min(next.value_or(*down), *down);
    alarm_.set(next);
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
  Instant now_{}, last_cut_{};
  Outbox* out_ = nullptr;  // The host's, in the call that is going on.

  std::unique_ptr<Host> host_;
  Alarm alarm_;
};

}  // namespace

std::unique_ptr<Host> make_rehearsal(const HostOptions& options, Machine& machine) {
  return std::make_unique<RehearsalHost>(options, machine);
}

}  // namespace net
