// Who decides for the run: pure arithmetic over lists of voters. Two sets of voters that have
// nobody in common are never both a quorum, so whatever one quorum has agreed to, the next one
// hears of from at least one of its own.
#pragma once

#include <map>
#include <set>
#include <vector>

#include "net/message.h"

namespace net {

// `is_its_coordinator`: those present follow the coordinator that made the list, which has been it
// since then.
bool is_quorum(const Electorate& electorate, const std::set<uint64_t>& present,
               bool is_its_coordinator);

// The electorates of which each one must agree: the last one that is settled, and one that shall be
// next. That is settled when a quorum of both knows of it: from then on nobody can be a quorum of
// the older one without hearing of it. Another one is made only then.
class Electorates {
 public:
  // As another coordinator left them; none: the run begins.
  void begin(std::vector<Electorate> inherited);
  const std::vector<Electorate>& list() const { return list_; }
  bool is_settled() const { return list_.size() < 2; }

  bool is_quorum(const std::set<uint64_t>& present) const;
  // REQUIRES: is_settled().
  void add(Electorate made);
  // `informed`: the nodes that know all of them. True if that settles the last one.
  bool settle(const std::set<uint64_t>& informed);

 private:
  std::vector<Electorate> list_;
  size_t inherited_count_ = 0;  // Of them, that another coordinator made.
};

}  // namespace net
