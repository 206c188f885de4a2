// For a node that cannot be dialled: it dials those who may want something of it, and says Offer.
// From then on it is as if they had dialled: they ask on that link, and our server answers.
//
// One link to each, or as many as it invites us to; a link that is lost, or leads to somebody else,
// is dialled again with growing pauses.
#pragma once

#include <map>
#include <vector>

#include "net/exchange/server.h"
#include "net/turn.h"

namespace net {

class Outreach {
 public:
  // `server` outlives the object.
  Outreach(uint64_t run, Server& server) : run_(run), server_(server) {}

  // Whom to call on from now on, as `self`: links to others are closed, and so are all if we were
  // somebody else before.
  void call_on(const std::vector<Donor>& peers, PeerId self, Turn turn);
  // Dials what is missing. To be called after every change and at every tick.
  void pump(Turn turn);

  bool owns(LinkId link) const { return calls_by_link_.contains(link); }
  void on_link_open(LinkId link, const Remote& remote, Turn turn);
  void on_link_closed(LinkId link, Instant now);
  void on_invite(LinkId link, const Invite& invite);

 private:
  struct Link {
    Instant dialled_at{};
    bool is_open = false;  // Then it is the server's to answer on.
  };
  struct Call {
    Donor who;
    std::map<LinkId, Link> links;
    size_t link_count = 1;  // That are wanted.
    Instant dial_at{};
    Duration pause{};
  };

  void hang_up(const Call& call, Turn turn);
  void forget(Call& call, LinkId link, Instant now);
  void dial(Call& call, Turn turn);

  const uint64_t run_;
  Server& server_;
  PeerId self_ = kNobody;
  std::map<uint64_t, Call> calls_;  // By node key.
  std::map<LinkId, uint64_t> calls_by_link_;
};

}  // namespace net
