#include "cli/progress_bar.h"

#include <algorithm>
#include <fmt/format.h>
#include <iostream>
#include <unistd.h>

namespace cli {
namespace {

constexpr auto kBetweenDrawings = std::chrono::milliseconds(100);
constexpr int kBarLetters = 24;
constexpr const char* kEraseLine = "\r\x1b[K";

}  // namespace

std::string progress_line(int64_t done, int64_t total, double seconds, const std::string& note) {
  const double share = total > 0 ? std::clamp(double(done) / double(total), 0.0, 1.0) : 0;
  const int letters = int(share * kBarLetters);
  std::string bar(size_t(letters), '=');
  if (letters < kBarLetters) bar += '>';
  bar.resize(kBarLetters, ' ');
  const double rate = seconds > 0 ? double(done) / seconds : 0;
  const std::string left =
      rate > 0 ? fmt::format("{:.0f} s left", double(std::max<int64_t>(total - done, 0)) / rate)
               : std::string("? s left");
  return fmt::format("[{}] {:3.0f} %  {:.2f} of {:.2f} GB  {:.1f} MB/s  {}  {}", bar, 100 * share,
                     double(done) / 1e9, double(total) / 1e9, rate / 1e6, left, note);
}

ProgressBar::ProgressBar() : is_terminal_(::isatty(STDERR_FILENO) == 1) {}

ProgressBar::~ProgressBar() {
  if (is_drawn_) std::cerr << kEraseLine << std::flush;
}

void ProgressBar::show(int64_t done, int64_t total, const std::string& note) {
  const auto now = Clock::now();
  if (is_drawn_ && now - drawn_ < kBetweenDrawings) return;
  drawn_ = now;
  is_drawn_ = true;
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  std::cerr << kEraseLine << progress_line(done, total, seconds, note) << std::flush;
}

}  // namespace cli
