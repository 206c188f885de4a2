// Tells those who wait at the run's configured address where the run is, while somebody else
// coordinates it: whoever listens there may have been started again without a memory. And, once,
// that it is done, so that nobody waits there any more.
#pragma once

#include <optional>

#include "net/coordinator.h"
#include "net/coordinator/speaker.h"
#include "net/turn.h"

namespace net {

class Announcer {
 public:
  // Both outlive the object.
  Announcer(const CoordinatorOptions& options, const Speaker& speaker)
      : options_(options), speaker_(speaker) {}

  bool owns(LinkId link) const { return link_ == link; }
  // `self`: where this coordinator is reached. Nothing: there is nothing to tell.
  void on_tick(const std::optional<Redirect>& self, bool is_done, Turn turn);
  void on_link_open(LinkId link, Turn turn);
  void on_link_closed() { link_.reset(); }

 private:
  const CoordinatorOptions& options_;
  const Speaker& speaker_;
  std::optional<Redirect> self_;
  bool is_done_ = false;
  std::optional<LinkId> link_;
  Instant due_at_{};
};

}  // namespace net
