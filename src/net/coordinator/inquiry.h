// Was a sum right? A member that made a chunk of a committed round again, and found another result
// than its owner published, or a contributor that does not show its part, says so. Its word alone
// is worth nothing: all other contributors of the round are asked to make the chunk again. Their
// parts are bound by the roots that were in Open, so that all who are honest find the same. More
// than half of all contributors decide: the owner was wrong, somebody hides his part, or the
// accuser was wrong. None of it, where too few can say it, as with fewer than three.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "net/coordinator/conduct.h"
#include "net/coordinator/round.h"
#include "net/coordinator/speaker.h"

namespace net {

class Inquiries {
 public:
  // All outlive the object.
  Inquiries(int64_t fragment_count, const Roster& roster, const Speaker& speaker, Conduct& conduct)
      : roster_(roster), speaker_(speaker), conduct_(conduct), pasts_(size_t(fragment_count)) {}

  // What was asked about the fragment's last round is over. `round` is being committed.
  void on_commit(const Round& round);
  // A member's word about a chunk, asked for or not.
  void on_audited(const MemberRecord& member, const Authority& authority, const Audited& audited,
                  Turn turn);

 private:
  struct Witness {
    PeerId peer = kNobody;
    uint64_t node_key = 0;  // 0: it is not here any more.
    std::string name;
    bool can_judge = true;  // It reaches all others.
  };
  struct Inquiry {
    uint32_t chunk = 0;
    size_t accuser = 0;               // Indexes of contributors.
    std::map<size_t, Audited> words;  // Of whoever has answered.
    bool is_closed = false;
  };
  struct Past {
    Authority authority;
    std::vector<Witness> contributors;
    Plan plan;
    std::map<uint32_t, Inquiry> inquiries;  // By chunk; one for each accuser.
    std::set<size_t> convicted;             // For this round, once.
  };

  bool begin(Past& past, size_t accuser, const Authority& authority, const Audited& audited,
             Turn turn);
  void judge(Past& past, Inquiry& inquiry);

  const Roster& roster_;
  const Speaker& speaker_;
  Conduct& conduct_;
  std::vector<std::optional<Past>> pasts_;  // By fragment.
};

}  // namespace net
