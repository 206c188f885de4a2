#include "train/doctor/net_checks.h"

#include <fmt/format.h>

#include "train/shared_config.h"

namespace train {
namespace {

using enum CheckLevel;

// Heartbeats should not be as long on their way as they are apart.
constexpr double kTripsPerHeartbeat = 2;
// A round that takes half of its time-out is one bad minute away from it.
constexpr double kRoundShareMax = 0.5;

std::string milliseconds_text(double seconds) {
  return fmt::format("{:.1f} ms", 1e3 * seconds);
}

}  // namespace

Check check_listening(const net::Endpoint& listen, const std::string& problem) {
  if (!problem.empty())
    return {"port", kFail, problem, "end what uses it, or choose another node.listen"};
  return {"port", kOk, fmt::format("can listen on {}", listen.text()), ""};
}

Check check_own_port(const PortMap& map, const net::VisitFinding& finding) {
  const std::string address = map.advertise.text();
  if (finding.is_node) return {"address", kOk, fmt::format("{} leads to this node", address), ""};
  return {"address", kWarn,
          fmt::format("{} does not lead here from inside: {}", address, finding.reason),
          "--dial-back asks the coordinator; a node that nobody can dial contributes, but sums "
          "nothing"};
}

Check check_coordinator(const net::Endpoint& coordinator, const net::VisitFinding& finding) {
  const std::string address = coordinator.text();
  if (!finding.is_reached) {
    return {"coordinator", kFail, fmt::format("{}: {}", address, finding.reason),
            "is it started, is its port open to this machine, and has it the same secret?"};
  }
  if (finding.elsewhere) {
    return {"coordinator", kOk,
            fmt::format("{} says that the run goes on at {}", address, finding.elsewhere->text()),
            ""};
  }
  if (finding.answer_seconds == 0) {
    return {"coordinator", kFail, fmt::format("{}: {}", address, finding.reason),
            "is it a coordinator of this run, and does it know this node?"};
  }
  return {"coordinator", kOk,
          fmt::format("{} answers after {}", address, milliseconds_text(finding.answer_seconds)),
          ""};
}

Check check_shared_config(const RunConfig& config, const net::VisitFinding& finding) {
  if (finding.shared_config.empty())
    return {"config", kWarn, finding.reason.empty() ? "not told" : finding.reason, ""};
  const auto differences = shared_config_differences(shared_config(config), finding.shared_config);
  if (differences.empty()) return {"config", kOk, "what must be equal on all nodes is", ""};
  return {"config", kFail, difference_lines(differences), change_hint(differences)};
}

Check check_dial_back(const net::VisitFinding& finding) {
  if (finding.is_dialled_back)
    return {"dial-back", kOk, "the coordinator has dialled this node", ""};
  return {"dial-back", kFail,
          finding.reason.empty() ? "the coordinator has not dialled this node" : finding.reason,
          "open the port, or map it and say so in node.advertise"};
}

Check check_time_outs_over(const SwarmConfig& swarm, double round_trip_seconds,
                           double round_seconds) {
  Check check{.name = "time-outs",
              .value = fmt::format("heartbeats each {:.3g} s, dead after {:.3g} s",
                                   swarm.heartbeat_seconds, swarm.dead_seconds),
              .advice = {}};
  if (round_trip_seconds > 0)
    check.value += fmt::format(", round trip {}", milliseconds_text(round_trip_seconds));
  if (round_seconds > 0) {
    check.value += fmt::format("; the longest round {:.1f} s of {:.0f}", round_seconds,
                               swarm.round_timeout_seconds);
  }
  if (kTripsPerHeartbeat * round_trip_seconds > swarm.heartbeat_seconds) {
    check.level = kWarn;
    check.advice = "raise swarm.dead_seconds: heartbeats are longer on their way than apart";
  }
  if (round_seconds > kRoundShareMax * swarm.round_timeout_seconds) {
    const bool is_late = round_seconds > swarm.round_timeout_seconds;
    check.level = is_late ? kFail : kWarn;
    check.advice = fmt::format(
        "raise swarm.round_timeout_seconds to {:.0f} or more, or use more "
        "outer.fragments or fewer bits{}",
        3 * round_seconds, is_late ? ": no round would commit" : "");
  }
  return check;
}

}  // namespace train
