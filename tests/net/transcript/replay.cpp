#include "net/transcript/replay.h"

#include <charconv>
#include <fmt/ranges.h>
#include <sstream>

#include "base/log.h"
#include "net/cluster_moments.h"
#include "net/quiet_log.h"
#include "net/transcript/printer.h"
#include "net/turn.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr Duration kPatience = minutes(5);

// Dials somebody and sends what is no message.
class Stranger : public Machine {
 public:
  Stranger(Printer& printer, const World& world, HostId victim)
      : printer_(printer), world_(world), victim_(victim) {}

  void on_start(Instant, Outbox& out) override {
    const std::vector<std::byte> garbage(3, std::byte{0x2a});
    out.send(out.connect(Cluster::address(victim_)),
             {.type = MessageType::kHello,
              .run = run_hash("simulated"),
              .authority = {},
              .payload = std::make_shared<const std::vector<std::byte>>(garbage)});
  }
  void on_link_closed(LinkId, const std::string& reason, Instant, Outbox&) override {
    printer_.happened(world_.now(), "the stranger's connection ends: " + reason);
  }
  void on_link_open(LinkId, bool, const Remote&, Instant, Outbox&) override {}
  void on_message(LinkId, const Message&, Instant, Outbox&) override {}
  void on_drained(LinkId, Instant, Outbox&) override {}
  void on_tick(Instant, Outbox&) override {}

 private:
  Printer& printer_;
  const World& world_;
  const HostId victim_;
};

using Words = std::vector<std::string>;

class Replay {
 public:
  Replay();
  ~Replay() { quiet_log(); }
  std::string run(const std::string& transcript);

 private:
  using Handler = void (Replay::*)(const Words&);
  static const std::map<std::string, Handler>& before_start();
  static const std::map<std::string, Handler>& after_start();

  void command(const std::string& text);
  void make_cluster();

  // Before.
  void nodes(const Words& words) { options_.node_count = first_ = number(words, 1); }
  void first(const Words& words) { first_ = number(words, 1); }
  void plan(const Words& words) {
    const bool is_ring = word(words, 1) == "ring";
    if (!is_ring && words[1] != "two-level") throw base::bad_input("no such plan: " + words[1]);
    using Plan = CoordinatorOptions::Plan;
    options_.coordinator.plan = is_ring ? Plan::kRing : Plan::kTwoLevel;
  }
  void chunks(const Words& words) { options_.trainer.chunk_count = number(words, 1); }
  void blocks(const Words& words) {
    options_.trainer.block_count = number(words, 1);
    options_.trainer.block_padding_bytes = number(words, 2);
  }
  void keep(const Words& words) { options_.trainer.results_kept = number(words, 1); }
  void line(const Words& words) { options_.network.bytes_per_second = double(number(words, 1)); }
  // One of the nodes coordinates, and another one takes over.
  void home(const Words& words) {
    options_.home = host(words, 1);
    options_.coordinator.fail_over = true;
  }

  // After.
  void start(const Words& words);
  void start_host(HostId host, Cluster::Memory memory);
  void kill(const Words& words);
  void freeze(const Words& words) { world().freeze(host(words, 1)); }
  void thaw(const Words& words) { world().thaw(host(words, 1)); }
  void leave(const Words& words) { node(words, 1).leave("its operator says so"); }
  void cut(const Words& words) { world().cut(host(words, 1), host(words, 2)); }
  void heal(const Words& words) { world().heal(host(words, 1), host(words, 2)); }
  // Nobody can dial it any more. Links that stand stay.
  void close(const Words& words) { world().close_port(host(words, 1)); }
  void break_links(const Words& words) { world().break_links(host(words, 1), host(words, 2)); }
  void slow(const Words& words) {
    node(words, 1).set_step_time(options_.trainer.step_time * number(words, 2));
  }
  void weightless(const Words& words) { node(words, 1).set_weight(0); }
  void absurd(const Words& words) { node(words, 1).be_absurd(); }
  void withdraw(const Words& words) { node(words, 1).withdraw(); }
  void spoil(const Words& words);
  void stranger(const Words& words);
  void run_for(const Words& words) { world().run_for(seconds(number(words, 1))); }
  void until(const Words& words);
  void when(const Words& words);
  void show(const Words& words);
  void hide(const Words& words);
  void quietly(const Words& words);

  // What a word means; throws bad_input if it means nothing.
  static const std::string& word(const Words& words, size_t place);
  static std::string rest(const Words& words, size_t place);
  static int64_t number(const Words& words, size_t place);
  HostId host(const Words& words, size_t place) const;
  FakeTrainer& node(const Words& words, size_t place);
  World& world() { return cluster_->world; }

  ClusterOptions options_ = quick_cluster(1, 3);
  int64_t first_ = 3;
  Printer printer_;
  std::unique_ptr<Cluster> cluster_;
  std::vector<std::unique_ptr<Stranger>> strangers_;
  bool is_oracle_misled_ = false;
};

// Every way takes the same time, so that the reader can follow it.
Replay::Replay() {
  options_.network.latency_min = options_.network.latency_max = milliseconds(20);
  options_.network.jitter = Duration{};
  options_.network.work_time_max = Duration{};
}

std::string Replay::run(const std::string& transcript) {
  std::istringstream lines(transcript);
  std::string printed;
  int64_t number = 0;
  for (std::string text; std::getline(lines, text);) {
    ++number;
    const bool is_command = text.starts_with("> ");
    if (!is_command && !text.starts_with("#")) continue;
    printed += text + "\n";
    if (!is_command) continue;
    try {
      command(text.substr(2));
    } catch (const base::Error& error) {
      throw base::bad_input(fmt::format("line {}: {}", number, error.what()));
    }
    printed += printer_.take();
  }
  if (!cluster_) throw base::bad_input("it has no command that does anything");
  if (const auto violations = cluster_->violations(); !violations.empty() && !is_oracle_misled_)
    throw base::bad_input(violations);
  return printed;
}

void Replay::command(const std::string& text) {
  std::istringstream stream(text);
  Words words;
  for (std::string word; stream >> word;) words.push_back(word);
  const std::string& name = word(words, 0);
  if (const auto found = before_start().find(name); found != before_start().end()) {
    if (cluster_) throw base::bad_input("too late for: " + text);
    return (this->*found->second)(words);
  }
  const auto found = after_start().find(name);
  if (found == after_start().end()) throw base::bad_input("there is no such command: " + text);
  if (!cluster_) make_cluster();
  (this->*found->second)(words);
}

const std::map<std::string, Replay::Handler>& Replay::before_start() {
  static const std::map<std::string, Handler> handlers{
      {"nodes", &Replay::nodes},   {"first", &Replay::first}, {"chunks", &Replay::chunks},
      {"blocks", &Replay::blocks}, {"keep", &Replay::keep},   {"line", &Replay::line},
      {"home", &Replay::home},     {"plan", &Replay::plan}};
  return handlers;
}

const std::map<std::string, Replay::Handler>& Replay::after_start() {
  static const std::map<std::string, Handler> handlers{{"start", &Replay::start},
                                                       {"kill", &Replay::kill},
                                                       {"freeze", &Replay::freeze},
                                                       {"thaw", &Replay::thaw},
                                                       {"leave", &Replay::leave},
                                                       {"cut", &Replay::cut},
                                                       {"heal", &Replay::heal},
                                                       {"break", &Replay::break_links},
                                                       {"close", &Replay::close},
                                                       {"slow", &Replay::slow},
                                                       {"weightless", &Replay::weightless},
                                                       {"absurd", &Replay::absurd},
                                                       {"withdraw", &Replay::withdraw},
                                                       {"spoil", &Replay::spoil},
                                                       {"stranger", &Replay::stranger},
                                                       {"run", &Replay::run_for},
                                                       {"until", &Replay::until},
                                                       {"when", &Replay::when},
                                                       {"show", &Replay::show},
                                                       {"hide", &Replay::hide},
                                                       {"quietly", &Replay::quietly}};
  return handlers;
}

void Replay::make_cluster() {
  options_.coordinator.start_members = first_;
  options_.trainer.on_event = [this](HostId host, const MemberEvent& event) {
    printer_.reported(world().now(), host, event);
  };
  cluster_ = std::make_unique<Cluster>(options_);
  for (HostId node = 1; node <= options_.node_count; ++node) {
    MemberOptions member = cluster_->member_options(node);
    member.node_name = name_of(node);
    cluster_->change_member_options(node, member);
  }
  world().on_delivery = [this](HostId from, HostId to, Message& message) {
    printer_.said(world().now(), from, to, message);
  };
  base::configure_log({.prefix = "",
                       .file = "",
                       .stderr_level = base::LogLevel::kError,
                       .keep_lines = false,
                       .on_line = [this](base::LogLevel level, std::string_view text) {
                         if (level < base::LogLevel::kWarning || !world().acting()) return;
                         printer_.warned(world().now(), *world().acting(), std::string(text));
                       }});
}

// --- Commands.

void Replay::start(const Words& words) {
  if (words.size() == 1) return cluster_->start_all();
  const bool is_fresh = words.back() == "fresh";
  for (size_t i = 1; i < words.size() - is_fresh; ++i)
    start_host(host(words, i), is_fresh ? Cluster::Memory::kLost : Cluster::Memory::kKept);
}

void Replay::start_host(HostId host, Cluster::Memory memory) {
  if (world().is_on(host) && host != kCoordinatorHost && cluster_->node(host).stopped())
    cluster_->crash_node(host);  // Its process has ended already.
  if (world().is_on(host)) throw base::bad_input(name_of(host) + " runs");
  if (host == kCoordinatorHost) return cluster_->start_coordinator();
  cluster_->start_node(host, memory);
}

void Replay::kill(const Words& words) {
  const HostId victim = host(words, 1);
  const bool is_silent = words.size() > 2;
  if (is_silent && words[2] != "silently") throw base::bad_input("how is that: " + words[2]);
  if (!world().is_on(victim)) throw base::bad_input(words[1] + " does not run");
  if (victim == kCoordinatorHost) return cluster_->crash_coordinator();
  cluster_->crash_node(victim, is_silent);
}

void Replay::spoil(const Words& words) {
  const std::string& what = word(words, 1);
  FakeTrainer& victim = node(words, 2);
  if (what == "state") {
    // For the oracle, a round with parts of two states must not be.
    is_oracle_misled_ = true;
    victim.spoil_state(0);
  } else if (what == "contributions") {
    victim.spoil_contributions(number(words, 3));
  } else if (what == "blocks") {
    victim.spoil_blocks(number(words, 3));
  } else {
    throw base::bad_input("that cannot be spoilt: " + what);
  }
}

void Replay::stranger(const Words& words) {
  const HostId host = kStranger;
  if (strangers_.empty()) world().add_host(host, Cluster::address(host));
  strangers_.push_back(std::make_unique<Stranger>(printer_, world(), this->host(words, 1)));
  world().turn_on(host, *strangers_.back());
}

void Replay::until(const Words& words) {
  const auto happens = [&](const std::function<bool()>& is_true) {
    if (!cluster_->run_until(is_true, kPatience)) throw base::bad_input("that never happens");
  };
  if (word(words, 1) == "version") {
    const auto version = uint64_t(number(words, 2));
    return happens([&] { return cluster_->lowest_version() >= version; });
  }
  const FakeTrainer& node = this->node(words, 1);
  const std::string& what = word(words, 2);
  if (what == "version") {
    const auto version = uint64_t(number(words, 3));
    happens([&] { return node.version(0) >= version; });
  } else if (what == "active") {
    happens([&] { return node.is_active(); });
  } else if (what == "stopped") {
    happens([&] { return node.stopped().has_value(); });
  } else {
    throw base::bad_input("that is not waited for: " + what);
  }
}

// Whether a message is of the kind that a transcript names so.
std::function<bool(const Message&)> kind_of(const std::string& name) {
  static const std::map<std::string, MessageType> types{{"open", MessageType::kOpen},
                                                        {"reown", MessageType::kReown},
                                                        {"done", MessageType::kDone},
                                                        {"commit", MessageType::kCommit},
                                                        {"catch-up", MessageType::kCatchUp}};
  static const std::map<std::string, WantKind> chunks{{"contribution", WantKind::kContribution},
                                                      {"result", WantKind::kResult},
                                                      {"block", WantKind::kState},
                                                      {"past", WantKind::kPast},
                                                      {"subtotal", WantKind::kSubtotal}};
  if (const auto type = types.find(name); type != types.end())
    return [type](const Message& message) { return message.type == type->second; };
  if (const auto kind = chunks.find(name); kind != chunks.end())
    return [kind](const Message& message) { return is_chunk_of(message, kind->second); };
  throw base::bad_input("no message is called " + name);
}

// The message still arrives; what would come after it does not.
void Replay::when(const Words& words) {
  const auto is_it = kind_of(word(words, 2));
  const bool is_from = word(words, 3) == "from";
  if (!is_from && words[3] != "to") throw base::bad_input("neither from nor to: " + words[3]);
  std::string name = word(words, 4);
  if (!name.ends_with(",")) throw base::bad_input("no comma after " + name);
  name.pop_back();
  const HostId who = host({name}, 0);
  const std::string then = rest(words, 5);
  auto left = std::make_shared<int64_t>(number(words, 1));
  once_before(
      *cluster_,
      [=](HostId from, HostId to, const Message& message) {
        return (is_from ? from : to) == who && is_it(message) && --*left == 0;
      },
      [=, this] {
        world().after(Duration(1), [=, this] {
          printer_.happened(world().now(), "> " + then);
          command(then);
        });
      });
}

void Replay::show(const Words& words) {
  if (word(words, 1) != "chunks") throw base::bad_input("that is always shown, or never");
  if (words.size() == 2) return printer_.show_chunks([](HostId) { return true; });
  if (words[2] != "to") throw base::bad_input("to whom: " + words[2]);
  printer_.show_chunks([shown = host(words, 3)](HostId to) { return to == shown; });
}

void Replay::hide(const Words& words) {
  if (word(words, 1) != "chunks") throw base::bad_input("that cannot be hidden");
  printer_.show_chunks(nullptr);
}

void Replay::quietly(const Words& words) {
  command(rest(words, 1));
  printer_.take();
}

// --- Words.

std::string Replay::rest(const Words& words, size_t place) {
  word(words, place);
  return fmt::format("{}", fmt::join(words.begin() + ptrdiff_t(place), words.end(), " "));
}

const std::string& Replay::word(const Words& words, size_t place) {
  if (place >= words.size()) throw base::bad_input("words are missing");
  return words[place];
}

int64_t Replay::number(const Words& words, size_t place) {
  const std::string& text = word(words, place);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 0)
    throw base::bad_input("no number: " + text);
  return value;
}

HostId Replay::host(const Words& words, size_t place) const {
  const std::string& name = word(words, place);
  for (HostId host = 0; host <= options_.node_count; ++host) {
    if (name_of(host) == name) return host;
  }
  throw base::bad_input("nobody is called " + name);
}

FakeTrainer& Replay::node(const Words& words, size_t place) {
  const HostId host = this->host(words, place);
  if (host == kCoordinatorHost || !cluster_->is_running(host))
    throw base::bad_input("that is no node that runs: " + words[place]);
  return cluster_->node(host);
}

}  // namespace

base::Result<std::string> replay(const std::string& transcript) {
  try {
    return Replay().run(transcript);
  } catch (const base::Error& error) {
    return base::Failure{error.what()};
  }
}

}  // namespace net
