// A link between the member and the coordinator of one process. As on any other, what is said on it
// is heard later, in order, and its id is not used again.
#pragma once

#include <deque>
#include <optional>

#include "net/machine.h"

namespace net {

class InnerLink {
 public:
  static bool is_inner(LinkId link) { return link >= kFirst; }

  // The member's side. The link before is closed by now.
  LinkId connect();
  void send(LinkId link, Message message);
  void close(LinkId link);

  struct Event {
    enum class Kind { kOpen, kMessage, kClosed };
    Kind kind = Kind::kOpen;
    bool is_members = false;  // Whose it is.
    LinkId link = 0;          // As that side knows it.
    Message message;
  };
  // The next one, of a link that stands.
  std::optional<Event> next();

 private:
  static constexpr LinkId kFirst = LinkId{1} << 63;

  LinkId last_ = kFirst;  // Members' sides are even, coordinators' are one more.
  bool is_open_ = false;
  std::deque<Event> events_;
};

}  // namespace net
