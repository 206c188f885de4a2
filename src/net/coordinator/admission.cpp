#include "net/coordinator/admission.h"

#include <algorithm>
#include <span>

#include "net/probe.h"
#include "net/wire/wire.h"

namespace net {
namespace {

// Between the connection and its Hello.
constexpr Duration kHelloWithin = std::chrono::seconds(10);
// A fragment is committed once in inner_steps steps, but more often where nodes are started again
// and again; then with a step more each time, but for the ends of a run.
constexpr uint64_t kVersionsExtra = 8;

base::Result<Hello> read_hello(const Message& message, const CoordinatorOptions& options) {
  if (message.run != run_hash(options.run_name)) {
    return base::Failure{
        fmt::format("this is the coordinator of run '{}', not of yours", options.run_name)};
  }
  if (message.type != MessageType::kHello) return base::Failure{"the first message is not a Hello"};
  // In all versions it is the first field; the rest may look different.
  uint32_t protocol = kProtocolVersion;
  const std::span<const std::byte> bytes(*message.payload);
  WireReader(bytes.first(std::min(bytes.size(), sizeof(protocol)))).number(protocol);
  if (protocol != kProtocolVersion) {
    return base::Failure{fmt::format("you speak protocol version {}, this run speaks version {}",
                                     protocol, kProtocolVersion)};
  }
  return decode<Hello>(bytes);
}

// What a node says of its past must be possible.
bool is_possible(const Hello& hello, const CoordinatorOptions& options) {
  if (options.steps_total > 0 && hello.step > options.steps_total) return false;
  if (options.inner_steps == 0) return true;
  const uint64_t version_max = hello.step + kVersionsExtra;
  return std::ranges::all_of(hello.states, [&](const FragmentState& state) {
    return state.version == kNoVersion || state.version <= version_max;
  });
}

}  // namespace

void Admission::on_link_open(LinkId link, const Remote& remote, Instant now) {
  strangers_[link] = {.remote = remote, .came_at = now, .name = "a node", .twin = {}};
}

std::optional<Admission::Verdict> Admission::on_message(LinkId link, const Message& message,
                                                        const Roster& roster, Instant now) {
  Stranger& stranger = strangers_.at(link);
  if (stranger.twin) return refuse(link, {.reason = "a second message before the Welcome"});
  auto hello = read_hello(message, options_);
  if (!hello.ok()) return refuse(link, {.reason = hello.reason()});
  stranger.name = hello->node_name;
  if (auto reject = refusal(*hello, stranger.remote.node, roster))
    return refuse(link, std::move(*reject));
  Applicant applicant{.link = link,
                      .remote = stranger.remote.endpoint,
                      .node = stranger.remote.node,
                      .hello = std::move(*hello),
                      .term = message.authority.term,
                      .came_at = now};
  if (!roster.has_node(applicant.hello.node_key)) return admit(link, std::move(applicant));
  stranger.came_at = now;
  probe<"a node registers while its old link stands">();
  stranger.twin = std::move(applicant);
  return std::nullopt;
}

std::vector<Admission::Verdict> Admission::on_tick(const Roster& roster, Turn turn) {
  std::vector<Verdict> verdicts;
  std::vector<LinkId> links;
  for (const auto& [link, stranger] : strangers_) links.push_back(link);
  for (const LinkId link : links) {
    Stranger& stranger = strangers_.at(link);
    if (!stranger.twin) {
      if (!turn.is_due(stranger.came_at + kHelloWithin)) continue;
      probe<"a link says nothing">();
      turn.out.close(link);
      strangers_.erase(link);
      continue;
    }
    const MemberRecord* const old = roster.find_node(stranger.twin->hello.node_key);
    // What its last life said may come after what this one says, but not for long.
    const Duration heartbeat = options_.heartbeat_interval;
    const bool is_alive = old && old->heard_at >= stranger.came_at + heartbeat;
    probe<"a node key is in use twice">(is_alive);
    if (is_alive) {
      verdicts.push_back(refuse(
          link, {.reason = fmt::format(
                     "your node key is in use: '{}' at {} is alive, you are '{}' at {}. If the run "
                     "directory was copied, delete node_key in the copy",
                     old->name, old->remote.text(), stranger.twin->hello.node_name,
                     stranger.remote.endpoint.text())}));
    } else if (!old || turn.is_due(std::max(stranger.came_at, old->heard_at) + 2 * heartbeat)) {
      probe<"the old link of a node that came again is gone">(!old);
      verdicts.push_back(admit(link, std::move(*stranger.twin)));
    }
  }
  return verdicts;
}

Admission::Verdict Admission::refuse(LinkId link, Reject reject) {
  const Stranger& stranger = strangers_.at(link);
  std::string who = fmt::format("{} ({})", stranger.name, stranger.remote.endpoint.text());
  strangers_.erase(link);
  return {.admitted = {}, .rejected = std::move(reject), .link = link, .who = std::move(who)};
}

Admission::Verdict Admission::admit(LinkId link, Applicant applicant) {
  strangers_.erase(link);
  return {.admitted = std::move(applicant), .rejected = {}, .link = link, .who = {}};
}

std::optional<Reject> Admission::refusal(const Hello& hello, const NodeId& node,
                                         const Roster& roster) const {
  if (!node.is_zero() && hello.node_key != node.number()) {
    return Reject{.reason = "the node key of your Hello is not the one that you have proved"};
  }
  if (hello.config != options_.config) {
    return Reject{.reason = fmt::format("your configuration has the digest {}, the run's is {}",
                                        hello.config.hex().substr(0, 12),
                                        options_.config.hex().substr(0, 12)),
                  .shared_config = options_.shared_config};
  }
  if (int64_t(hello.states.size()) != options_.fragment_count) {
    return Reject{.reason = fmt::format("you have {} fragments, the run has {}",
                                        hello.states.size(), options_.fragment_count)};
  }
  probe<"a Hello with a state that cannot be">(!is_possible(hello, options_));
  if (!is_possible(hello, options_)) {
    return Reject{.reason = fmt::format(
                      "your state has version {} at step {}, which no node of this run can have",
                      hello.states[0].version, hello.step)};
  }
  if (!roster.has_node(hello.node_key) && roster.count() >= kMembersMax) {
    return Reject{.reason = fmt::format("the run is full: it has {} members", kMembersMax),
                  .restart_makes_sense = true};
  }
  return std::nullopt;
}

}  // namespace net
