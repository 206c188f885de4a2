// An outbox that holds a machine to what it may do to the world: it says nothing on a link that it
// has closed, says only what can be decoded, and keeps what waits for the network within bounds.
// As with sockets, what is said on a link that the other side has ended is lost.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <set>

#include "net/machine.h"

namespace net {

class CheckedOutbox : public Outbox {
 public:
  struct Link {
    Endpoint dialled;  // Empty: it was accepted.
    bool is_open = false;
    int64_t queued = 0;
    bool was_above = false;
  };

  CheckedOutbox(int64_t dialled_max, int64_t jobs_max)
      : dialled_max_(dialled_max), jobs_max_(jobs_max) {}

  LinkId connect(const Endpoint& endpoint) override;
  void send(LinkId link, Message message) override;
  void close(LinkId link) override;
  int64_t queued_bytes(LinkId link) const override;
  int64_t all_queued_bytes() const override;
  void start(Job job) override;
  void wake_at(Instant) override {}

  // Sees what is sent, after it was checked.
  std::function<void(LinkId link, const Message& message)> on_send;

  // Links that stand or are being made, as the machine knows them.
  const std::map<LinkId, Link>& links() const { return links_; }
  bool has(LinkId link) const { return links_.contains(link); }
  LinkId accept();
  void opened(LinkId link) { links_.at(link).is_open = true; }
  void lost(LinkId link) { links_.erase(link); }
  // All that waits on the link has gone out; whether the machine is to hear of it.
  bool drain(LinkId link);

  size_t job_count() const { return jobs_.size(); }
  // Takes the job that was started as the `index`-th of those that are out.
  Job take_job(size_t index);

 private:
  const int64_t dialled_max_;
  const int64_t jobs_max_;
  std::map<LinkId, Link> links_;
  std::set<LinkId> closed_;
  std::deque<Job> jobs_;
  LinkId last_link_ = 0;
};

}  // namespace net
