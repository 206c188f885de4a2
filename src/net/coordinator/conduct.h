// What the coordinator remembers of how nodes behaved, by node and not by connection: who was left
// out of a round does not contribute again before it has received as many rounds in time, and each
// further offence doubles their number. So one that fails every time costs the others ever less.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace net {

class Conduct {
 public:
  // It was left out of a round that it was to contribute to, or that waited for it; or it did what
  // is worth so many of these.
  void offended(uint64_t node, const std::string& why, int64_t count = 1);
  // It had the results of a round in time.
  void kept(uint64_t node);

  // It receives results, contributes nothing, and nobody waits for it.
  bool is_on_probation(uint64_t node) const { return rounds_to_keep(node) > 0; }
  int64_t rounds_to_keep(uint64_t node) const;
  int64_t offences(uint64_t node) const;
  std::string last_offence(uint64_t node) const;

  // Whether it was ready when a round that waited for it opened. Who misses two has none that wait.
  void was_ready(uint64_t node, bool in_time);
  bool is_awaited(uint64_t node) const;

 private:
  struct Record {
    int64_t offences = 0;
    int64_t to_keep = 0;
    int64_t kept_in_a_row = 0;
    int64_t missed = 0;
    std::string why;
  };
  const Record* find(uint64_t node) const;
  Record& at(uint64_t node);

  std::map<uint64_t, Record> records_;
};

}  // namespace net
