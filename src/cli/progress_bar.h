// How far a command is, in one line that is drawn over and over where stderr is a terminal.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace cli {

class ProgressBar {
 public:
  ProgressBar();
  ~ProgressBar();  // Takes the line away again.
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // stderr is a terminal.
  bool is_shown() const { return is_terminal_; }
  // Bytes; at most ten times a second something is drawn. `note` stands at the end of the line.
  void show(int64_t done, int64_t total, const std::string& note);

 private:
  using Clock = std::chrono::steady_clock;
  const bool is_terminal_;
  const Clock::time_point begin_ = Clock::now();
  Clock::time_point drawn_{};
  bool is_drawn_ = false;
};

// "[=====>    ]  52 %  1.3 of 2.5 GB  87 MB/s  14 s left  note"
std::string progress_line(int64_t done, int64_t total, double seconds, const std::string& note);

}  // namespace cli
