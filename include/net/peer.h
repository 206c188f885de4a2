// A node as others see it: a member, and a coordinator that stands by behind the same port, so that
// any node can take the run over when its coordinator is lost.
//
// Each incoming link is handed on by its first frame: a Hello to the coordinator, anything else to
// the member. While our member follows a coordinator in another process, who says Hello here is
// sent there. When it follows none, the coordinator here hears them, as any other does: with a
// quorum of the last members it begins. Our own member comes over a link that never leaves the
// process.
#pragma once

#include <memory>
#include <vector>

#include "net/coordinator.h"
#include "net/member.h"

namespace net {

// A machine, and a member in all that concerns its trainer. leave() hands the run over before the
// coordinator here ends, if it coordinates: go on calling the machine until has_left().
class Peer : public Member {
 public:
  struct Options {
    std::string run_name;
    NodeId node;                // Ours, as links prove it; zero where they are not secured.
    uint64_t identity = 0;      // CoordinatorOptions::identity
    std::vector<Endpoint> own;  // MemberOptions::own
  };
  static std::unique_ptr<Peer> create(Options options, std::unique_ptr<Member> member,
                                      std::unique_ptr<Coordinator> coordinator);
  virtual const Coordinator& coordinator() const = 0;
  virtual bool has_left() const = 0;
};

}  // namespace net
