// What happens in a cluster, in short lines for people. Who says the same to several at the same
// time has one line, and so have several who say the same to one; chunks are counted.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "net/member.h"
#include "net/simulator.h"

namespace net {

// a, b, c, ... for nodes 1, 2, 3, ...; the coordinator; a stranger.
inline constexpr HostId kStranger = 99;
std::string name_of(HostId host);

class Printer {
 public:
  // Before delivery, as seen by nobody but the reader.
  void said(Instant now, HostId from, HostId to, const Message& message);
  void reported(Instant now, HostId node, const MemberEvent& event);
  void warned(Instant now, HostId host, const std::string& text);
  void happened(Instant now, const std::string& text);

  // Heartbeats and what else is said all the time are never shown; chunks only to those of whom
  // this is true.
  void show_chunks(std::function<bool(HostId to)> is_shown) { shows_chunks_ = std::move(is_shown); }
  // The lines since the last call.
  std::string take();

 private:
  struct Line {
    Instant first{}, last{};
    std::vector<std::string> from;
    std::vector<std::string> to;  // Empty: it is not said to anybody.
    std::string verb;             // Between from and the text, if nobody is spoken to.
    std::string text;
    int64_t count = 0;  // Of chunks; 0: it is no chunk.
  };

  void add(Line line);
  bool joins(Line& line, const Line& next) const;
  std::string text_of(const Message& message);
  std::string text_of(const MemberEvent& event) const;
  std::string text_of(const Open& open, const Authority& authority);
  std::string text_of(const Reown& reown, const Authority& authority) const;
  std::string text_of(const Committed& committed) const;
  std::string donors(const std::vector<Donor>& donors) const;
  std::string peers(const std::vector<PeerId>& peers) const;
  std::string peer(PeerId peer) const;

  std::function<bool(HostId to)> shows_chunks_;  // Null: to nobody.
  std::vector<Line> lines_;
  std::map<PeerId, std::string> peers_;  // As the coordinator welcomed them.
  // Who contributes to a round, in the order of a result's header; by fragment and round.
  std::map<std::pair<int64_t, uint64_t>, std::vector<PeerId>> contributors_;
};

}  // namespace net
