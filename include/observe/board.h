// What a run's metrics.jsonl says so far, in bounded memory: totals, newest values, curves, the
// last rounds and events. Lines go in one after the other, wherever they come from: a file, or the
// node that writes it. docs/formats/metrics.md lists them.
#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace observe {

inline constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

// A line over steps. As it grows neighbours become one point, their mean, so that it never has more
// than kPointsMax.
class Curve {
 public:
  static constexpr size_t kPointsMax = 400;
  struct Point {
    double x = 0;  // Of the newest sample in it.
    double sum = 0;
    int64_t count = 0;
    double mean() const { return sum / double(count); }
  };

  // `x` does not go back, see drop_from(). A `y` that is not finite is left out.
  void add(double x, double y);
  // A run that goes on from an older checkpoint makes these steps again.
  void drop_from(double x);
  const std::vector<Point>& points() const { return points_; }

 private:
  void merge_neighbours();

  std::vector<Point> points_;
  int64_t stride_ = 1;  // Samples of a whole point.
};

// Of the newest samples.
class Quantiles {
 public:
  static constexpr size_t kSamplesMax = 1024;
  void add(double value);
  double at(double share) const;  // 0.5 is the median; kUnknown without samples.
  size_t count() const { return samples_.size(); }

 private:
  std::vector<double> samples_;
  size_t next_ = 0;  // The one that is replaced next, once there are all.
};

struct BoardRound {
  int64_t round = 0, fragment = 0, step = 0, member_count = 0;
  double time = 0;  // Seconds since 1970, as everywhere here.
  double seconds = 0, exposed = 0, encode = 0, wait = 0, apply = 0;
  int64_t sent = 0, received = 0;  // Bytes.
  bool contributed = false;
  std::string codec, plan;
};

struct BoardContribution {
  int64_t member = 0;
  double norm = 0, cosine = 0, share = 0;
};

// Texts come from other machines too, and may hold anything that is UTF-8.
struct BoardEvent {
  double time = 0;
  std::string kind;   // "incident: lost", "membership", "checkpoint", ...
  std::string text;   // What happened.
  std::string cause;  // The first cause; empty where there is nothing to say.
};

struct Board {
  static constexpr size_t kRoundsMax = 40;
  static constexpr size_t kEventsMax = 100;
  static constexpr size_t kListMax = 256;  // Members, contributions; kinds of incidents.

  // One line, without its end. What is no line of metrics is counted, and changes nothing else;
  // keys that are missing or have another type are as if unknown.
  void add(std::string_view line);

  // From `start`, or from any line.
  std::string run, node, version, device;
  int64_t parameters = 0;
  int64_t steps_total = 0;  // 0: not known.
  double price_per_gb = 0;
  double started = 0;  // When this process began; 0: not known.
  int64_t starts = 0;  // Of processes.

  enum class State { kStarting, kTraining, kFinished, kStopped };
  State state = State::kStarting;
  double time = 0;  // Of the newest line.
  int64_t lines = 0, unreadable_lines = 0;

  // The newest step.
  int64_t step = 0, samples = 0;
  double loss = kUnknown, gradient_norm = kUnknown, learning_rate = kUnknown;
  double tokens_per_second = kUnknown, mfu = kUnknown, passes = kUnknown;
  double validation_loss = kUnknown;
  // Of all processes. Steps and tokens that were trained again count again.
  int64_t tokens = 0, skipped_steps = 0, step_count = 0;
  double step_seconds_sum = 0;
  Quantiles step_seconds;

  // Rounds of all processes.
  int64_t round_count = 0, sent_bytes = 0, received_bytes = 0;
  double round_seconds = 0, exposed_seconds = 0;
  double encode_seconds = 0, wait_seconds = 0, apply_seconds = 0;  // The parts of exposed_seconds.
  std::deque<BoardRound> rounds;                                   // Oldest first.
  std::vector<BoardContribution> contributions;                    // Of the newest round.

  int64_t epoch = 0;
  std::vector<int64_t> members;
  bool contributes = true;
  std::string standing_reason;

  int64_t checkpoints = 0, failed_checkpoints = 0, checkpoint_step = 0, checkpoint_bytes = 0;
  double checkpoint_seconds = kUnknown;
  std::map<std::string, int64_t> incidents;  // Lines, by what.
  std::deque<BoardEvent> events;             // Oldest first.

  Curve loss_curve, validation_curve, speed_curve, utilisation_curve, exposed_curve;

  // Of this process: the share of the time since its first step in which no round stood in the way.
  double utilisation() const;
  // Until the last step, at this process's pace; kUnknown without one.
  double seconds_left() const;
  double price() const { return price_per_gb * double(sent_bytes) / 1e9; }

  // What utilisation() is made of, of this process.
  struct Pace {
    double begin = 0;  // Of its first step; 0: none yet.
    double end = 0;    // Of the newest step or round.
    double exposed = 0;
    int64_t steps = 0;
    double told = kUnknown;  // By the summary.
    // Since the last point of utilisation_curve.
    double interval_begin = 0, interval_exposed = 0;
  } pace;
};

const char* name_of(Board::State state);
// The kinds that a node writes, see net/incident.h, and "dropped".
std::vector<std::string> incident_kinds();
// "2026-01-31T12:00:00.123Z" as seconds since 1970; 0 for anything else.
double parse_utc(const std::string& text);

}  // namespace observe
