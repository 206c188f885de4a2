// What is known about the way to one peer, and what follows: over how many connections chunks are
// fetched, and how many bytes may be asked for at a time.
//
// One connection does not fill a long path: its rate is bounded by the system's buffers per round
// trip, and by what it takes back at every lost packet. Several do; on a short path they only cost.
// So the number is found by trying: it is doubled while that brings a tenth more, and each
// connection carries enough per round trip to be worth it. A try that brings less is taken back.
//
// Pure: time comes with every call. The rate is measured in slots of several round trips and
// chunks, and counts for a try only if there was more to ask for all the time.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "net/types.h"

namespace net {

class Path {
 public:
  explicit Path(int64_t links_max) : links_max_(links_max) {}

  // How long it took to connect. The shortest counts.
  void on_connected(Duration time);
  // A chunk has come over one of `link_count` connections that stand. `has_more`: not everything
  // that we want of this peer is asked for already.
  void on_arrival(int64_t bytes, int64_t link_count, bool has_more, Instant now);
  // The same, for what the way carries: contributions wait for nothing at their sender, so from the
  // first one that comes until none is asked for any more (`more_is_due`) all that comes is what
  // the way carries, beside whatever else uses it.
  void on_carried(int64_t bytes, bool more_is_due, Instant now);
  // Nothing is asked for: what comes next is not compared with what was before.
  void on_idle() {
    slot_.reset();
    run_.reset();
  }
  // One more connection cannot be had; there are `left`, at least one.
  void on_refused(int64_t left, Instant now);

  int64_t link_count() const { return link_count_; }
  std::optional<Duration> round_trip() const { return round_trip_; }
  double carried_per_second() const { return carried_; }  // Bytes; 0: not known.
  // To have in flight: twice what the path holds, with a moment for both sides' other work. Nothing
  // before the first slot is over.
  std::optional<int64_t> window_bytes() const;

 private:
  struct Slot {
    Instant start{};  // A chunk has come; it is not counted, as nobody knows when it began.
    int64_t bytes = 0;
    int64_t chunk_count = 0;
    bool had_more = true;
  };

  Duration slot_time() const;
  void judge(double rate, Instant now);
  void decide(double rate, Instant now);
  void pause_trials(Instant now);

  int64_t links_max_;
  int64_t link_count_ = 1;
  std::optional<Duration> round_trip_;
  std::optional<Slot> slot_;
  struct Run {
    Instant start{};  // The first contribution has come; it is not counted.
    int64_t bytes = 0;
  };
  std::optional<Run> run_;
  double carried_ = 0;              // Of the last run.
  double rate_ = 0;                 // Bytes per second, of the better of the last two slots.
  double last_rate_ = 0;            // Of the last slot.
  double best_rate_ = 0;            // Since the last decision.
  std::vector<double> flat_rates_;  // Of the slots since it last rose by a tenth.
  struct Trial {
    int64_t link_count = 0;  // Before it, and
    double rate = 0;         // what they brought.
  };
  std::optional<Trial> trial_;
  Instant no_trial_before_ = Instant::min();
  Duration pause_{};  // The last one; longer each time.
};

}  // namespace net
