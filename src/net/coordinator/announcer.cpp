#include "net/coordinator/announcer.h"

#include <utility>

#include "net/probe.h"

namespace net {
namespace {

// Of the last time. Newcomers wait at most so long for a run that goes on elsewhere.
constexpr Duration kAgainAfter = std::chrono::seconds(10);

}  // namespace

void Announcer::on_tick(const std::optional<Redirect>& self, Turn turn) {
  if (std::exchange(self_, self) != self) due_at_ = turn.now;
  if (turn.now < due_at_) return;
  due_at_ = turn.now + kAgainAfter;
  if (link_) turn.out.close(*link_);  // Nobody has answered.
  link_.reset();
  if (self_ && options_.home) link_ = turn.out.connect(*options_.home);
}

void Announcer::on_link_open(LinkId link, Turn turn) {
  probe<"the run's configured address is told where the run is">();
  if (self_) speaker_.send(link, MessageType::kRedirect, encode(*self_), turn);
  turn.out.close(link);
  link_.reset();
}

}  // namespace net
