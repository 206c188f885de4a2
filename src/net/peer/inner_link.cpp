#include "net/peer/inner_link.h"

#include <utility>

namespace net {

LinkId InnerLink::connect() {
  last_ += 2;
  is_open_ = true;
  for (const bool is_members : {false, true}) {
    events_.push_back({.kind = Event::Kind::kOpen,
                       .is_members = is_members,
                       .link = last_ + (is_members ? 0 : 1),
                       .message = {}});
  }
  return last_;
}

void InnerLink::send(LinkId link, Message message) {
  if (!is_open_ || (link & ~LinkId{1}) != last_) return;
  events_.push_back({.kind = Event::Kind::kMessage,
                     .is_members = link != last_,
                     .link = link ^ 1,
                     .message = std::move(message)});
}

// What was said before is heard first; what comes the other way is not heard any more.
void InnerLink::close(LinkId link) {
  if (!is_open_ || (link & ~LinkId{1}) != last_) return;
  is_open_ = false;
  std::erase_if(events_, [&](const Event& event) { return event.link == link; });
  events_.push_back(
      {.kind = Event::Kind::kClosed, .is_members = link != last_, .link = link ^ 1, .message = {}});
}

std::optional<InnerLink::Event> InnerLink::next() {
  if (events_.empty()) return std::nullopt;
  Event event = std::move(events_.front());
  events_.pop_front();
  return event;
}

}  // namespace net
