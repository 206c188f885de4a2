// The thread, the listener, the timer and the links; and the queue between them and the machine.
// Whatever happens becomes an event in that queue, and the machine hears of it when it is not in
// the middle of something else: so an Outbox call that fails at once does not re-enter it, and an
// event for a link that it has closed meanwhile is dropped.
#include "net/host.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <signal.h>
#include <sys/resource.h>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "base/log.h"
#include "base/thread.h"
#include "net/transport/address.h"
#include "net/transport/held_host.h"
#include "net/transport/link.h"
#include "net/wake_up.h"

namespace net {
namespace {

// While a link has a deadline, or a queue whose progress is watched.
constexpr Duration kLinksLookedAtEvery = std::chrono::milliseconds(100);
constexpr int kBacklog = 128;
// A flood of connections must leave the loop time for its links.
constexpr int64_t kAcceptedInTickMax = 256;
constexpr Duration kFinishPatience = std::chrono::seconds(1);
constexpr Duration kWarningInterval = std::chrono::seconds(10);
// For checkpoints, datasets, logs and devices.
constexpr int64_t kDescriptorsKept = 128;

int64_t descriptors_max() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return INT64_MAX;
  return int64_t(limit.rlim_cur);
}

base::Error cannot_listen(const Endpoint& endpoint, int status) {
  const char* hint = "";
  if (status == UV_EADDRINUSE)
    hint = "choose another port, or stop the program that has this one (see ss -ltnp)";
  if (status == UV_EADDRNOTAVAIL)
    hint = "this machine does not have the address; 0.0.0.0 means all that it has";
  if (status == UV_EACCES) hint = "ports below 1024 are for the superuser: choose a higher one";
  if (status == UV_EMFILE || status == UV_ENFILE)
    hint = "raise the limit of open files (ulimit -n)";
  return base::bad_input(
      fmt::format("cannot listen on {}: {}", endpoint.text(), uv_strerror(status)), hint);
}

// An exception must not unwind through libuv, which is C.
template <class Body>
void without_exceptions(const Body& body) {
  try {
    body();
  } catch (const std::exception& error) {
    base::report_bug(__FILE__, __LINE__, "the machine does not throw", error.what());
  } catch (...) {
    base::report_bug(__FILE__, __LINE__, "the machine does not throw", "an unknown exception");
  }
}

struct Opened {
  bool incoming = false;
  Remote remote;
};
struct Drained {};
struct Ended {
  std::string reason;
};
struct Event {
  LinkId link = 0;
  std::variant<Opened, Message, Drained, Ended> what;
};

class UvHost final : public Host, private Outbox, private LinkObserver {
 public:
  UvHost(const HostOptions& options, Machine& machine);
  ~UvHost() override;
  void listen();

  Endpoint listening_on() const override { return listening_on_; }
  void start() override;
  void post(Call call) override;
  int64_t bytes_sent() const override { return context_.bytes_sent; }
  int64_t bytes_received() const override { return context_.bytes_received; }

 private:
  // Outbox, for the machine.
  LinkId connect(const Endpoint& endpoint) override;
  void send(LinkId link, Message message) override;
  void close(LinkId link) override;
  int64_t queued_bytes(LinkId link) const override;
  int64_t all_queued_bytes() const override { return context_.queued_bytes; }
  void start(Job job) override;
  void wake_at(Instant at) override { wake_up_.ask(at, called_at_); }

  // LinkObserver, for the links.
  void link_opened(LinkId link, const Remote& remote) override;
  void link_received(LinkId link, Message message) override;
  void link_drained(LinkId link) override;
  void link_ended(LinkId link, const std::string& reason) override;

  // Callbacks of libuv.
  void on_connection(int status);
  void on_mail();
  void on_timer();
  void look_at_links(Instant now);
  bool must_look_at_links() const;
  void set_timer();
  void on_worked(const Job& job);

  bool has_room_for(const Link& link) const;
  void make_room_for_a_stranger(const std::string& network);
  void cut_revoked();
  void for_each_link(const std::function<void(Link&)>& visit);
  void refused(const std::string& network, const std::string& reason);
  // True if it was said: only so often.
  bool warn(const std::string& text);
  sockaddr_storage listen_address();
  void run();
  void stop();
  void stop_if_finished();
  void add_event(Event event);
  void deliver_events();
  void deliver(Event& event);
  template <class Body>
  void call_machine(const Body& body);
  template <class Body>
  void tell_machine(const Body& body);
  Link& add_link(std::unique_ptr<Link> link, LinkId id);
  void retire(std::map<LinkId, std::unique_ptr<Link>>& links, LinkId id);

  const HostOptions options_;
  Machine& machine_;
  Endpoint listening_on_;
  std::thread thread_;

  uv_loop_t loop_;
  uv_tcp_t listener_;
  uv_timer_t timer_;
  uv_prepare_t before_waiting_;
  uv_async_t mail_;

  std::mutex mail_mutex_;
  std::vector<Call> calls_;
  bool must_stop_ = false;

  // From here on: the loop thread's, but for the two counters of bytes.
  std::unique_ptr<const TlsContext> tls_;
  uint64_t keys_generation_ = 0;  // That the links were last held against.
  LinkContext context_;
  LinkId next_link_ = 1;
  std::map<LinkId, std::unique_ptr<Link>> links_;      // Those that the machine knows.
  std::map<LinkId, std::unique_ptr<Link>> finishing_;  // Those that it has closed.
  std::vector<std::unique_ptr<Link>>
      retired_;  // May still be on the call stack: the timer frees them.
  std::deque<Event> events_;
  bool is_in_machine_ = false;
  Instant called_at_{};  // The machine, the last time.
  WakeUp wake_up_;
  Instant links_looked_at_{};
  bool is_stopping_ = false;
  int64_t refused_count_ = 0;
  int64_t accepted_in_tick_ = 0;
  bool is_connection_waiting_ = false;
  Instant last_warning_ = -kWarningInterval;
};

UvHost::UvHost(const HostOptions& options, Machine& machine)
    : options_(options), machine_(machine) {
  const int status = uv_loop_init(&loop_);
  if (status != 0) {
    throw base::resource_lost(fmt::format("cannot make an event loop: {}", uv_strerror(status)),
                              "raise the limit of open files (ulimit -n)");
  }
  const auto on_mail = [](uv_async_t* mail) { static_cast<UvHost*>(mail->data)->on_mail(); };
  CHECK(uv_async_init(&loop_, &mail_, on_mail) == 0);
  CHECK(uv_timer_init(&loop_, &timer_) == 0);
  CHECK(uv_prepare_init(&loop_, &before_waiting_) == 0);
  CHECK(uv_tcp_init(&loop_, &listener_) == 0);
  mail_.data = timer_.data = before_waiting_.data = listener_.data = this;
  if (options.security) tls_ = std::make_unique<const TlsContext>(*options.security);
  context_.loop = &loop_;
  context_.observer = this;
  context_.tls = tls_.get();
  context_.first_frame_timeout = options.first_frame_timeout;
  context_.dial_timeout = options.dial_timeout;
  context_.queued_bytes_hard_max = options.queued_bytes_hard_max;
  context_.write_stall_timeout = options.write_stall_timeout;
  context_.socket_bytes_per_second = options.socket_bytes_per_second;
}

// Calls posted before are made before the end begins.
UvHost::~UvHost() {
  if (thread_.joinable()) {
    {
      const std::lock_guard lock(mail_mutex_);
      must_stop_ = true;
    }
    uv_async_send(&mail_);
    thread_.join();
  } else {
    stop();
    uv_run(&loop_, UV_RUN_DEFAULT);
  }
  const int status = uv_loop_close(&loop_);
  CHECK(status == 0, "{}", uv_strerror(status));
}

sockaddr_storage UvHost::listen_address() {
  if (const auto address = numeric_address(options_.listen)) return *address;
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  uv_getaddrinfo_t request;
  const int status = uv_getaddrinfo(&loop_, &request, nullptr, options_.listen.host.c_str(),
                                    std::to_string(options_.listen.port).c_str(), &hints);
  if (status != 0) throw cannot_listen(options_.listen, status);
  const sockaddr_storage address = found_addresses(request.addrinfo).at(0);
  uv_freeaddrinfo(request.addrinfo);
  return address;
}

void UvHost::listen() {
  const sockaddr_storage address = listen_address();
  int status = uv_tcp_bind(&listener_, reinterpret_cast<const sockaddr*>(&address), 0);
  if (status != 0) throw cannot_listen(options_.listen, status);
  const auto on_connection = [](uv_stream_t* listener, int result) {
    static_cast<UvHost*>(listener->data)->on_connection(result);
  };
  status = uv_listen(reinterpret_cast<uv_stream_t*>(&listener_), kBacklog, on_connection);
  if (status != 0) throw cannot_listen(options_.listen, status);
  listening_on_ = local_endpoint(&listener_);
}

void UvHost::start() {
  CHECK(!thread_.joinable());
  thread_ = std::thread([this] { run(); });
}

void UvHost::run() {
  base::set_thread_name(options_.thread_name);
  // libuv writes with write(2), which raises SIGPIPE on a connection that the other side has
  // closed.
  sigset_t pipe_signal;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipe_signal, nullptr);

  const auto set_timer = [](uv_prepare_t* prepare) {
    static_cast<UvHost*>(prepare->data)->set_timer();
  };
  CHECK(uv_prepare_start(&before_waiting_, set_timer) == 0);
  tell_machine([&](Instant now) { machine_.on_start(now, *this); });
  deliver_events();
  uv_run(&loop_, UV_RUN_DEFAULT);
}

void UvHost::post(Call call) {
  {
    const std::lock_guard lock(mail_mutex_);
    calls_.push_back(std::move(call));
  }
  uv_async_send(&mail_);
}

void UvHost::on_mail() {
  std::vector<Call> calls;
  bool must_stop = false;
  {
    const std::lock_guard lock(mail_mutex_);
    calls.swap(calls_);
    must_stop = must_stop_;
  }
  if (is_stopping_) return;
  for (const Call& call : calls) {
    tell_machine([&](Instant now) { call(now, *this); });
    deliver_events();
  }
  if (must_stop) stop();
}

void UvHost::on_timer() {
  const Instant now = monotonic_now();
  if (now >= links_looked_at_ + kLinksLookedAtEvery) look_at_links(now);
  if (is_stopping_ || now < wake_up_.at()) return;
  wake_up_.begin_tick();
  call_machine([&](Instant at) { machine_.on_tick(at, *this); });
  deliver_events();
}

void UvHost::look_at_links(Instant now) {
  links_looked_at_ = now;
  retired_.clear();
  accepted_in_tick_ = 0;
  if (std::exchange(is_connection_waiting_, false) && !is_stopping_) on_connection(0);
  cut_revoked();
  for_each_link([now](Link& link) { link.check_deadline(now); });
}

// Whoever reads a list of keys may be another thread.
bool UvHost::must_look_at_links() const {
  const auto must = [](const auto& entry) { return entry.second->has_deadline(); };
  return !retired_.empty() || accepted_in_tick_ > 0 || (tls_ && tls_->has_list()) ||
         std::ranges::any_of(links_, must) || std::ranges::any_of(finishing_, must);
}

// Before the loop waits. Where nothing is due it waits for events alone.
void UvHost::set_timer() {
  Instant next = is_stopping_ ? Instant::max() : wake_up_.at();
  if (must_look_at_links()) next = std::min(next, links_looked_at_ + kLinksLookedAtEvery);
  if (next == Instant::max()) {
    uv_timer_stop(&timer_);
    return;
  }
  uv_update_time(&loop_);
  const auto wait = std::chrono::ceil<std::chrono::milliseconds>(next - monotonic_now());
  const auto on_timer = [](uv_timer_t* timer) { static_cast<UvHost*>(timer->data)->on_timer(); };
  CHECK(uv_timer_start(&timer_, on_timer, uint64_t(std::max<int64_t>(wait.count(), 0)), 0) == 0);
}

void UvHost::on_connection(int status) {
  // libuv asks no further until this one is accepted.
  if (++accepted_in_tick_ > kAcceptedInTickMax) {
    is_connection_waiting_ = true;
    return;
  }
  const LinkId id = next_link_++;
  auto link = std::make_unique<Link>(context_, id, Link::Origin::kAccepted);
  if (status == 0) status = link->accept(reinterpret_cast<uv_stream_t*>(&listener_));
  if (status != 0) {
    warn(fmt::format("cannot accept a connection: {}", uv_strerror(status)));
    return;
  }
  if (link->remote_network().empty()) return;  // It is gone again.
  if (tls_) make_room_for_a_stranger(link->remote_network());
  if (!has_room_for(*link)) return refused(link->remote_network(), "there are too many");
  add_link(std::move(link), id).open();
}

void UvHost::refused(const std::string& network, const std::string& reason) {
  ++refused_count_;
  const bool is_told = warn(
      fmt::format("refused a connection from {}: {} ({} so far)", network, reason, refused_count_));
  if (!is_told) return;
  tell(options_.on_incident, {.kind = Incident::Kind::kRefused,
                              .who = network,
                              .reason = reason,
                              .count = refused_count_});
}

bool UvHost::warn(const std::string& text) {
  if (monotonic_now() - last_warning_ < kWarningInterval) return false;
  last_warning_ = monotonic_now();
  base::log_warning("{}", text);
  return true;
}

// Whoever means it well has proved who it is after two round trips. So the oldest one goes, from
// the same address if that has more than its share: a flood from one place is no flood for others.
void UvHost::make_room_for_a_stranger(const std::string& network) {
  std::vector<LinkId> all, neighbours;  // In the order in which they came.
  for (const auto& [id, link] : links_) {
    if (!link->is_half_open()) continue;
    all.push_back(id);
    if (link->remote_network() == network) neighbours.push_back(id);
  }
  const bool are_many_neighbours = int64_t(neighbours.size()) >= options_.half_open_max / 2;
  if (!are_many_neighbours && int64_t(all.size()) < options_.half_open_max) return;
  links_.at((are_many_neighbours ? neighbours : all).front())->cut("too many strangers at once");
}

void UvHost::cut_revoked() {
  if (!tls_ || tls_->generation() == keys_generation_) return;
  keys_generation_ = tls_->generation();
  for_each_link([](Link& link) { link.cut_if_revoked(); });
}

// What becomes of one may be the end of others, or make some.
void UvHost::for_each_link(const std::function<void(Link&)>& visit) {
  std::vector<LinkId> ids;
  for (const auto& [id, link] : links_) ids.push_back(id);
  for (const auto& [id, link] : finishing_) ids.push_back(id);
  for (const LinkId id : ids) {
    for (const auto* links : {&links_, &finishing_}) {
      if (const auto found = links->find(id); found != links->end()) {
        visit(*found->second);
        break;
      }
    }
  }
}

// Links that are being closed have descriptors too.
bool UvHost::has_room_for(const Link& link) const {
  const auto is_incoming = [](const auto& entry) { return entry.second->is_incoming(); };
  const auto is_neighbour = [&](const auto& entry) {
    return entry.second->is_incoming() && entry.second->remote_network() == link.remote_network();
  };
  const auto link_count = int64_t(links_.size() + finishing_.size());
  return std::ranges::count_if(links_, is_incoming) < options_.links_max &&
         std::ranges::count_if(links_, is_neighbour) < options_.links_per_address_max &&
         link_count < descriptors_max() - kDescriptorsKept;
}

void UvHost::stop() {
  is_stopping_ = true;
  events_.clear();
  uv_close(reinterpret_cast<uv_handle_t*>(&listener_), nullptr);
  while (!links_.empty()) close(links_.begin()->first);
  stop_if_finished();
}

// The loop ends when it has no handles any more.
void UvHost::stop_if_finished() {
  const auto* timer = reinterpret_cast<const uv_handle_t*>(&timer_);
  if (!is_stopping_ || !links_.empty() || !finishing_.empty() || uv_is_closing(timer)) return;
  uv_close(reinterpret_cast<uv_handle_t*>(&timer_), nullptr);
  uv_close(reinterpret_cast<uv_handle_t*>(&before_waiting_), nullptr);
  uv_close(reinterpret_cast<uv_handle_t*>(&mail_), nullptr);
}

LinkId UvHost::connect(const Endpoint& endpoint) {
  wake_up_.review(called_at_);
  const LinkId id = next_link_++;
  add_link(std::make_unique<Link>(context_, id, Link::Origin::kDialled), id).dial(endpoint);
  return id;
}

void UvHost::send(LinkId link, Message message) {
  wake_up_.review(called_at_);
  if (const auto found = links_.find(link); found != links_.end()) {
    found->second->send(std::move(message));
  }
}

void UvHost::close(LinkId id) {
  wake_up_.review(called_at_);
  auto entry = links_.extract(id);
  if (entry.empty()) return;
  Link& link = *entry.mapped();
  if (link.has_ended()) {
    retired_.push_back(std::move(entry.mapped()));
    return;
  }
  finishing_.insert(std::move(entry));
  link.finish(kFinishPatience);
}

int64_t UvHost::queued_bytes(LinkId link) const {
  const auto found = links_.find(link);
  return found == links_.end() ? 0 : found->second->queued_bytes();
}

// On libuv's pool of threads (UV_THREADPOOL_SIZE, 4 by default), which all hosts of a process
// share. The loop does not end while a job is out, so it may use whatever outlives the host.
void UvHost::start(Job job) {
  wake_up_.review(called_at_);
  struct Request {
    uv_work_t work;
    UvHost& host;
    Job job;
  };
  auto request =
      std::make_unique<Request>(Request{.work = {}, .host = *this, .job = std::move(job)});
  request->work.data = request.get();
  const auto work = [](uv_work_t* w) {
    base::set_thread_name(kWorkerThreadName);
    without_exceptions([&] { static_cast<Request*>(w->data)->job.work(); });
  };
  const auto after = [](uv_work_t* w, int) {
    const std::unique_ptr<Request> done(static_cast<Request*>(w->data));
    done->host.on_worked(done->job);
  };
  CHECK(uv_queue_work(&loop_, &request.release()->work, work, after) == 0);
}

void UvHost::on_worked(const Job& job) {
  if (is_stopping_) return;
  tell_machine([&](Instant now) { job.done(now, *this); });
  deliver_events();
}

void UvHost::link_opened(LinkId link, const Remote& remote) {
  add_event({link, Opened{links_.at(link)->is_incoming(), remote}});
}

void UvHost::link_received(LinkId link, Message message) {
  add_event({link, std::move(message)});
}

void UvHost::link_drained(LinkId link) {
  add_event({link, Drained{}});
}

void UvHost::link_ended(LinkId link, const std::string& reason) {
  if (const auto found = links_.find(link); found != links_.end()) {
    if (found->second->has_stood() || !found->second->is_incoming())
      return add_event({link, Ended{reason}});
    // The machine never heard of it.
    refused(found->second->remote_network(), reason);
    return retire(links_, link);
  }
  retire(finishing_, link);
  stop_if_finished();
}

Link& UvHost::add_link(std::unique_ptr<Link> link, LinkId id) {
  return *links_.emplace(id, std::move(link)).first->second;
}

void UvHost::retire(std::map<LinkId, std::unique_ptr<Link>>& links, LinkId id) {
  retired_.push_back(std::move(links.extract(id).mapped()));
}

void UvHost::add_event(Event event) {
  events_.push_back(std::move(event));
  deliver_events();
}

void UvHost::deliver_events() {
  while (!is_in_machine_ && !events_.empty()) {
    Event event = std::move(events_.front());
    events_.pop_front();
    if (links_.contains(event.link)) deliver(event);
  }
}

void UvHost::deliver(Event& event) {
  const LinkId link = event.link;
  if (const auto* opened = std::get_if<Opened>(&event.what)) {
    tell_machine([&](Instant now) {
      machine_.on_link_open(link, opened->incoming, opened->remote, now, *this);
    });
  } else if (const auto* message = std::get_if<Message>(&event.what)) {
    tell_machine([&](Instant now) { machine_.on_message(link, *message, now, *this); });
  } else if (const auto* ended = std::get_if<Ended>(&event.what)) {
    retire(links_, link);
    tell_machine([&](Instant now) { machine_.on_link_closed(link, ended->reason, now, *this); });
  } else {
    tell_machine([&](Instant now) { machine_.on_drained(link, now, *this); });
  }
}

template <class Body>
void UvHost::call_machine(const Body& body) {
  is_in_machine_ = true;
  called_at_ = monotonic_now();
  without_exceptions([&] { body(called_at_); });
  is_in_machine_ = false;
}

// Something has happened.
template <class Body>
void UvHost::tell_machine(const Body& body) {
  call_machine(body);
  wake_up_.review(called_at_);
}

}  // namespace

std::unique_ptr<Host> Host::create(const HostOptions& options, Machine& machine) {
  if (options.rehearsal.is_on() || options.uplink_bytes_per_second > 0)
    return make_held_host(options, machine);
  auto host = std::make_unique<UvHost>(options, machine);
  host->listen();
  return host;
}

}  // namespace net
