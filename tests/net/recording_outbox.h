// An outbox that remembers what a machine did.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "net/machine.h"

namespace net {

class RecordingOutbox : public Outbox {
 public:
  LinkId connect(const Endpoint& endpoint) override {
    dialled[++last_link_] = endpoint;
    return last_link_;
  }
  void send(LinkId link, Message message) override { sent[link].push_back(std::move(message)); }
  void close(LinkId link) override { closed.insert(link); }
  int64_t queued_bytes(LinkId) const override { return queued; }
  int64_t all_queued_bytes() const override { return queued + queued_elsewhere; }
  void start(Job job) override { jobs.push_back(std::move(job)); }
  void wake_at(Instant at) override { wake = std::min(wake, at); }

  // Does all jobs, and those that come of them.
  void finish_jobs(Instant now) {
    while (!jobs.empty()) finish_job(now);
  }
  void finish_job(Instant now) {
    const Job job = std::move(jobs.front());
    jobs.pop_front();
    job.work();
    job.done(now, *this);
  }

  // The last message of this type on the link.
  const Message* last(LinkId link, MessageType type) const {
    const Message* found = nullptr;
    const auto on_link = sent.find(link);
    if (on_link == sent.end()) return nullptr;
    for (const Message& message : on_link->second) {
      if (message.type == type) found = &message;
    }
    return found;
  }
  template <class T>
  std::optional<T> last(LinkId link, MessageType type) const {
    const Message* const message = last(link, type);
    if (message == nullptr) return std::nullopt;
    return decode<T>(*message->payload).value();
  }
  int64_t count(LinkId link, MessageType type) const {
    int64_t count = 0;
    const auto on_link = sent.find(link);
    if (on_link == sent.end()) return 0;
    for (const Message& message : on_link->second) count += message.type == type;
    return count;
  }

  std::map<LinkId, Endpoint> dialled;
  std::map<LinkId, std::vector<Message>> sent;
  std::set<LinkId> closed;
  std::deque<Job> jobs;  // That are out.
  int64_t queued = 0;    // On each link.
  int64_t queued_elsewhere = 0;
  Instant wake = Instant::max();  // The earliest that was asked for.

 private:
  LinkId last_link_ = 1000;  // Below: links that the test makes up.
};

}  // namespace net
