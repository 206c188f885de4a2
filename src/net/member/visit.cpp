#include "net/visit.h"

#include <condition_variable>
#include <mutex>

#include "net/turn.h"

namespace net {
namespace {

class Visitor : public Machine {
 public:
  explicit Visitor(const VisitOptions& options)
      : options_(options), run_(run_hash(options.run_name)) {}

  void on_start(Instant now, Outbox& out) override {
    began_at_ = now;
    link_ = out.connect(options_.to);
  }

  void on_link_open(LinkId link, bool, const Remote&, Instant now, Outbox& out) override {
    if (link != link_) return;
    asked_at_ = now;
    change([&](VisitFinding& finding) {
      finding.is_reached = true;
      finding.connect_seconds = seconds_from(began_at_, now);
    });
    ask(out);
  }

  void on_link_closed(LinkId link, const std::string& reason, Instant, Outbox&) override {
    if (link == link_) end([&](VisitFinding& finding) { finding.reason = reason; });
  }

  void on_message(LinkId link, const Message& message, Instant now, Outbox& out) override {
    if (link != link_) return serve(link, message, out);
    if (message.type == MessageType::kReject) return hear_reject(message, now);
    if (message.type == MessageType::kRedirect) return hear_redirect(message, now);
    if (message.type == MessageType::kDialBackReply) return hear_proof(message, now);
    if (message.type == MessageType::kStandBy) {
      change([](VisitFinding& finding) {
        finding.reason = "the run has not begun there, and nobody is dialled before it has";
      });
    }
    if (message.type == MessageType::kNotice) hear_notice(message, now);
  }

  void on_drained(LinkId, Instant, Outbox&) override {}
  void on_tick(Instant, Outbox&) override {}

  // The port on which we listen; before the start.
  void set_port(uint16_t port) { port_ = port; }

  // So that it does not wait for us. On the loop thread.
  void leave(Outbox& out) {
    if (options_.ask == VisitOptions::Ask::kDialBack)
      send(link_, MessageType::kLeave, encode(Leave{.reason = "it only looked"}), out);
    out.close(link_);
  }

  VisitFinding wait() {
    std::unique_lock lock(mutex_);
    const auto patience = std::chrono::duration_cast<std::chrono::milliseconds>(options_.patience);
    ended_.wait_for(lock, patience, [&] { return is_over_; });
    if (!is_over_ && finding_.reason.empty()) finding_.reason = "no answer in time";
    return finding_;
  }

 private:
  static double seconds_from(Instant begin, Instant end) {
    return std::chrono::duration<double>(end - begin).count();
  }

  void send(LinkId link, MessageType type, Bytes payload, Outbox& out) const {
    out.send(link, {.type = type,
                    .run = run_,
                    .source = kNobody,
                    .authority = {},
                    .payload = std::move(payload)});
  }

  void ask(Outbox& out) {
    nonce_ = uint64_t(asked_at_.count()) | 1;
    if (options_.ask == VisitOptions::Ask::kIsNode)
      return send(link_, MessageType::kDialBack, encode(DialBack{nonce_}), out);
    Hello hello{
        .protocol = kProtocolVersion, .node_key = options_.node_key, .node_name = "atoll-doctor"};
    hello.states.resize(size_t(options_.fragment_count));
    if (options_.ask == VisitOptions::Ask::kDialBack) {
      hello.config = options_.config;
      hello.listen = options_.advertise;
      if (hello.listen.port == 0) hello.listen.port = port_;
    }
    send(link_, MessageType::kHello, encode(hello), out);
  }

  // Somebody dials us: the coordinator, or ourselves from outside.
  void serve(LinkId link, const Message& message, Outbox& out) {
    if (message.run != run_ || message.type != MessageType::kDialBack) return out.close(link);
    const auto dial_back = decode<DialBack>(*message.payload);
    if (!dial_back.ok()) return out.close(link);
    send(link, MessageType::kDialBackReply,
         encode(DialBackReply{dial_back_proof(options_.node_key, dial_back->nonce)}), out);
    if (options_.ask != VisitOptions::Ask::kDialBack) return;
    end([](VisitFinding& finding) {
      finding.is_dialled_back = true;
      finding.reason.clear();
    });
  }

  void hear_reject(const Message& message, Instant now) {
    const auto reject = decode<Reject>(*message.payload);
    end([&](VisitFinding& finding) {
      finding.answer_seconds = seconds_from(asked_at_, now);
      finding.reason = reject.ok() ? reject->reason : reject.reason();
      if (reject.ok()) finding.shared_config = reject->shared_config;
    });
  }

  void hear_redirect(const Message& message, Instant now) {
    const auto redirect = decode<Redirect>(*message.payload);
    end([&](VisitFinding& finding) {
      finding.answer_seconds = seconds_from(asked_at_, now);
      if (redirect.ok()) finding.elsewhere = redirect->coordinator;
    });
  }

  void hear_proof(const Message& message, Instant now) {
    const auto reply = decode<DialBackReply>(*message.payload);
    end([&](VisitFinding& finding) {
      finding.answer_seconds = seconds_from(asked_at_, now);
      finding.is_node = message.run == run_ && reply.ok() &&
                        reply->proof == dial_back_proof(options_.node_key, nonce_);
      if (!finding.is_node) finding.reason = "another node answers there";
    });
  }

  // That it could not dial us, among others.
  void hear_notice(const Message& message, Instant now) {
    const auto notice = decode<Notice>(*message.payload);
    if (!notice.ok() || notice->contributes) return;
    end([&](VisitFinding& finding) {
      finding.answer_seconds = seconds_from(asked_at_, now);
      finding.reason = notice->reason;
    });
  }

  template <class Change>
  void change(const Change& make) {
    std::lock_guard lock(mutex_);
    if (!is_over_) make(finding_);
  }
  // The first end counts.
  template <class Change>
  void end(const Change& make) {
    change(make);
    std::lock_guard lock(mutex_);
    is_over_ = true;
    ended_.notify_all();
  }

  const VisitOptions options_;
  const uint64_t run_;
  LinkId link_ = 0;
  Instant began_at_{}, asked_at_{};
  uint64_t nonce_ = 0;
  uint16_t port_ = 0;

  std::mutex mutex_;
  std::condition_variable ended_;
  VisitFinding finding_;
  bool is_over_ = false;
};

}  // namespace

VisitFinding visit(const VisitOptions& options) {
  Visitor visitor(options);
  const auto host = Host::create(options.host, visitor);
  visitor.set_port(host->listening_on().port);
  host->start();
  VisitFinding finding = visitor.wait();
  host->post([&](Instant, Outbox& out) { visitor.leave(out); });
  return finding;  // What was sent gets a second to go out.
}

}  // namespace net
