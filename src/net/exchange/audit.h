// The last committed round of a fragment, for as long as its sums can be made again: until the next
// one opens. A member samples chunks of other owners, gets the parts that are said to be in them
// from their contributors, and compares what they make with what was published. It also does so
// when the coordinator asks, and serves its own parts to others who do.
//
// Only when a round is committed: a chunk's owner, which is asked for its own part, must not know
// who will look at what before it has published its result, and no commit waits for this.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "net/exchange/arithmetic.h"
#include "net/exchange/chunk.h"
#include "net/turn.h"

namespace net {

class Audit {
 public:
  struct Chunk {
    uint32_t attempt = 0;  // The one that gave it its owner.
    PeerId owner = kNobody;
    bool is_direct = true;  // Its owner had all parts itself, which their contributors can show.
    ResultHeader header;
    base::Digest published;  // Of its result.
  };
  struct Record {
    PeerId self = kNobody;
    Authority authority;
    std::vector<Contributor> contributors;
    std::vector<Chunk> chunks;
    std::vector<Bytes> ours;  // Our parts that somebody asked for, by chunk; others are null.
  };
  Audit(Record record, FragmentStore& store, Duration patience)
      : record_(std::move(record)), store_(store), patience_(patience) {}

  bool is_of(uint32_t term, uint64_t round) const {
    return record_.authority.term == term && record_.authority.round == round;
  }
  // So many chunks of others, which nobody can foretell who does not know the secret.
  std::vector<int64_t> sample(uint64_t secret, int64_t count) const;
  // Begins to make a chunk again; nothing if it is our own, does not exist, or has parts of those
  // that we cannot reach. What comes of it is
  // told in any case if somebody asked for it, else only if it is not what was published, or
  // somebody does not show his part.
  void begin(int64_t chunk, bool is_asked, Instant now);
  // Who has not shown his part when the patience is over is named.
  void on_tick(Turn turn);

  struct Missing {
    ChunkName name;
    Donor provider;
  };
  std::vector<Missing> missing() const;
  void deliver(const ChunkName& name, const Bytes& payload);
  Answer answer(const ChunkName& name) const;

  struct Task {
    int64_t chunk = 0;
    std::function<Remade()> work;  // To be called once, on any thread.
  };
  std::optional<Task> next_task();
  void finish(int64_t chunk, const Remade& remade);

  struct Finding {
    Authority authority;
    Audited audited;
  };
  std::vector<Finding> take_findings() { return std::exchange(findings_, {}); }

 private:
  struct Work {
    bool is_asked = false;
    bool is_begun = false;  // As a task.
    Instant began_at{};
    std::map<int64_t, Bytes> parts;  // By contributor.
    std::optional<Remade> remade;    // Also where some do not show their parts.
  };
  std::vector<int64_t> contributors_in(int64_t chunk) const;
  bool can_be_remade(int64_t chunk) const;
  ChunkName name_of(int64_t chunk, WantKind kind) const;
  void tell(int64_t chunk);

  const Record record_;
  FragmentStore& store_;
  const Duration patience_;
  std::map<int64_t, Work> works_;  // By chunk.
  std::vector<Finding> findings_;
};

}  // namespace net
