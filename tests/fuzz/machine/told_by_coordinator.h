// What a coordinator has told its members, held against what it may tell:
//
//   - one digest for each round (fragment and version) of a term;
//   - a round is opened only for active members, and committed only to those for whom it is open;
//   - who is out of a round stays out and owns nothing in it; who was rejected hears no more;
//   - terms and epochs never go back, and no sample is given twice in a term.
#pragma once

#include <compare>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "net/message.h"

namespace net {

class ToldByCoordinator {
 public:
  struct RoundKey {
    uint32_t term = 0;
    uint32_t fragment = 0;
    uint64_t round = 0;
    auto operator<=>(const RoundKey&) const = default;
  };
  // What the other end of a link has heard, to answer it.
  struct Link {
    PeerId peer = kNobody;
    std::optional<CatchUp> catch_up;  // Not answered yet.
    bool is_active = false;
    bool is_rejected = false;
    std::map<uint32_t, Authority> open;             // By fragment.
    std::map<uint32_t, std::set<PeerId>> excluded;  // From it.
    std::map<uint32_t, Authority> committed;        // Not answered yet.
    std::map<uint32_t, uint64_t> versions;
  };

  // CHECKs.
  void hear(LinkId link, const Message& message);
  Link& link(LinkId link) { return links_[link]; }
  bool is_rejected(LinkId link) const {
    const auto found = links_.find(link);
    return found != links_.end() && found->second.is_rejected;
  }

 private:
  struct Round {
    std::vector<PeerId> contributors;
    std::optional<base::Digest> committed;
  };

  void hear_catch_up(Link& link, const CatchUp& catch_up);
  void hear_open(Link& link, const Open& open, const Authority& authority);
  void hear_reown(Link& link, const Reown& reown, const Authority& authority);
  void hear_commit(Link& link, const Commit& commit, const Authority& authority);
  void hear_samples(const Samples& samples, uint32_t term);

  std::map<LinkId, Link> links_;
  std::map<RoundKey, Round> rounds_;
  std::map<uint32_t, uint64_t> samples_end_;  // By term.
  uint32_t term_ = 0;
  uint64_t epoch_ = 0;
};

}  // namespace net
