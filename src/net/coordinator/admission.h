// Who may be a member: links that have not said who they are, what they say first, and why it may
// not be enough.
//
// A node that comes twice is one of two things: it was cut off and dials again, or somebody copied
// its run directory. The old link tells: who is still heard on it is alive, and the newcomer is
// refused; after two heartbeats of silence the newcomer takes its place.
#pragma once

#include <map>
#include <vector>

#include "net/coordinator.h"
#include "net/coordinator/roster.h"
#include "net/turn.h"

namespace net {

class Admission {
 public:
  explicit Admission(const CoordinatorOptions& options) : options_(options) {}

  void on_link_open(LinkId link, const Remote& remote, Instant now);
  void on_link_closed(LinkId link) { strangers_.erase(link); }
  bool owns(LinkId link) const { return strangers_.contains(link); }

  struct Applicant {
    LinkId link = 0;
    Endpoint remote;
    NodeId node;  // Zero on a link that is not secured.
    Hello hello;
    uint32_t term = 0;
    Instant came_at{};  // Its Hello.
  };
  // What to do with a link: exactly one of the two.
  struct Verdict {
    std::optional<Applicant> admitted;  // The link is not ours any more.
    std::optional<Reject> rejected;
    LinkId link = 0;
    std::string who;  // For the log.
  };
  // A stranger's message. Nothing if it must wait.
  std::optional<Verdict> on_message(LinkId link, const Message& message, const Roster& roster,
                                    Instant now);
  // Those who have waited long enough. Links that said nothing in time are closed.
  std::vector<Verdict> on_tick(const Roster& roster, Turn turn);

 private:
  struct Stranger {  // A link without a Hello, or with one that is looked into.
    Remote remote;
    Instant came_at{};
    std::string name = "a node";  // As it says.
    std::optional<Applicant> twin;
  };

  std::optional<Reject> refusal(const Hello& hello, const NodeId& node, const Roster& roster) const;
  Verdict refuse(LinkId link, Reject reject);
  Verdict admit(LinkId link, Applicant applicant);

  const CoordinatorOptions& options_;
  std::map<LinkId, Stranger> strangers_;
};

}  // namespace net
