#include "net/coordinator/announcer.h"

#include "net/probe.h"

namespace net {
namespace {

// Of the last time. Newcomers wait at most so long for a run that goes on elsewhere.
constexpr Duration kAgainAfter = std::chrono::seconds(10);

}  // namespace

void Announcer::on_tick(const std::optional<Redirect>& self, bool is_done, Turn turn) {
  const bool is_news = self_ != self || is_done_ != is_done;
  self_ = self;
  is_done_ = is_done;
  if (is_news) due_at_ = turn.now;
  if (!link_ && !(self_ && options_.home)) return;
  if (!turn.is_due(due_at_)) return;
  due_at_ = turn.now + kAgainAfter;
  if (link_) turn.out.close(*link_);  // Nobody has answered.
  link_.reset();
  if (self_ && options_.home) link_ = turn.out.connect(*options_.home);
}

void Announcer::on_link_open(LinkId link, Turn turn) {
  probe<"the run's configured address is told where the run is">();
  if (is_done_) {
    speaker_.send(link, MessageType::kLeave, encode(Leave{kDoneReason}), turn);
  } else if (self_) {
    speaker_.send(link, MessageType::kRedirect, encode(*self_), turn);
  }
  turn.out.close(link);
  link_.reset();
}

}  // namespace net
