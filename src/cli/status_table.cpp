#include "cli/status_table.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <span>

namespace cli {
namespace {

using observe::Board;

constexpr size_t kLabelWidth = 16;
constexpr size_t kColumnWidthMin = 18, kColumnWidthMax = 40;
constexpr size_t kEventsShown = 8;

bool begins_character(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
}

size_t columns_of(const std::string& text) {
  return size_t(std::ranges::count_if(text, begins_character));
}

// At most `width` characters, none of which moves the cursor or changes colours.
std::string fitted(const std::string& text, size_t width) {
  std::string result;
  size_t columns = 0;
  for (const char c : text) {
    if (begins_character(c) && ++columns > width) break;
    const auto byte = static_cast<unsigned char>(c);
    // U+0080 to U+009F are control characters too: C2 80 to C2 9F.
    const bool follows_c2 = !result.empty() && static_cast<unsigned char>(result.back()) == 0xC2;
    const bool is_control = byte < 0x20 || byte == 0x7F || (follows_c2 && byte < 0xA0);
    if (is_control && follows_c2) result.pop_back();
    result += is_control ? '?' : c;
  }
  return result;
}

std::string padded(const std::string& text, size_t width) {
  const std::string shown = fitted(text, width);
  return shown + std::string(width - std::min(width, columns_of(shown)), ' ');
}

std::string plain(double value, int digits = 4) {
  return std::isfinite(value) ? fmt::format("{:.{}g}", value, digits) : "-";
}

std::string share_text(double value) {
  return std::isfinite(value) ? fmt::format("{:.1f} %", 100 * value) : "-";
}

std::string amount_text(double value, const char* unit) {
  if (!std::isfinite(value)) return "-";
  size_t power = 0;
  for (; std::abs(value) >= 1000 && power < 5; ++power) value /= 1000;
  constexpr const char* kPowers[] = {"", "k", "M", "G", "T", "P"};
  return fmt::format("{:.3g} {}{}", value, kPowers[power], unit);
}

std::string span_text(double seconds) {
  if (!std::isfinite(seconds)) return "-";
  if (seconds < 1) return fmt::format("{:.3g} ms", 1000 * seconds);
  if (seconds < 120) return fmt::format("{:.3g} s", seconds);
  if (seconds < 7200) return fmt::format("{:.0f} min", seconds / 60);
  if (seconds < 172'800) return fmt::format("{:.1f} h", seconds / 3600);
  return fmt::format("{:.1f} days", seconds / 86'400);
}

// The curve in blocks of eight heights, one per character.
std::string spark_line(const observe::Curve& curve, size_t width) {
  const auto& points = curve.points();
  if (points.empty()) return "-";
  std::vector<double> means;
  const size_t count = std::min(width, points.size());
  for (size_t i = 0; i < count; ++i) {
    double sum = 0;
    const size_t begin = i * points.size() / count, end = (i + 1) * points.size() / count;
    for (size_t at = begin; at < end; ++at) sum += points[at].mean();
    means.push_back(sum / double(end - begin));
  }
  const auto [low, high] = std::ranges::minmax(means);
  std::string line;
  for (const double mean : means) {
    const double height = high > low ? (mean - low) / (high - low) : 0;
    constexpr const char* kBlocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    line += kBlocks[std::clamp(int(height * 8), 0, 7)];
  }
  return line;
}

std::string incidents_text(const Board& board) {
  std::string text;
  for (const auto& [kind, count] : board.incidents)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", kind, count);
  return text.empty() ? "none" : text;
}

std::string swarm_text(const Board& board) {
  if (board.members.empty()) return "-";
  return fmt::format("{}, epoch {}{}", board.members.size(), board.epoch,
                     board.contributes ? "" : ", left out");
}

std::string sent_text(const Board& board) {
  const std::string sent = amount_text(double(board.sent_bytes), "B");
  return board.price_per_gb > 0 ? fmt::format("{}, costs {}", sent, plain(board.price(), 3)) : sent;
}

struct TableRow {
  const char* label;
  std::string (*value)(const WatchedRun& run, double now, size_t width);
};

const std::vector<TableRow>& table_rows() {
  using Run = WatchedRun;
  static const std::vector<TableRow> rows = {
      {"run", [](const Run& r, double, size_t) { return r.board.run; }},
      {"node", [](const Run& r, double, size_t) { return r.board.node; }},
      {"state", [](const Run& r, double, size_t) { return std::string(name_of(r.board.state)); }},
      {"last line",
       [](const Run& r, double now, size_t) {
         return r.board.time > 0 ? span_text(std::max(0.0, now - r.board.time)) + " ago" : "-";
       }},
      {"step",
       [](const Run& r, double, size_t) {
         const Board& board = r.board;
         return board.steps_total > 0 ? fmt::format("{} of {}", board.step, board.steps_total)
                                      : fmt::format("{}", board.step);
       }},
      {"left", [](const Run& r, double, size_t) { return span_text(r.board.seconds_left()); }},
      {"loss", [](const Run& r, double, size_t) { return plain(r.board.loss); }},
      {"",
       [](const Run& r, double, size_t width) { return spark_line(r.board.loss_curve, width); }},
      {"validation loss",
       [](const Run& r, double, size_t) { return plain(r.board.validation_loss); }},
      {"tokens/s",
       [](const Run& r, double, size_t) { return amount_text(r.board.tokens_per_second, ""); }},
      {"MFU", [](const Run& r, double, size_t) { return share_text(r.board.mfu); }},
      {"step p50, p99",
       [](const Run& r, double, size_t) {
         const auto& times = r.board.step_seconds;
         return span_text(times.at(0.5)) + ", " + span_text(times.at(0.99));
       }},
      {"utilisation",
       [](const Run& r, double, size_t) { return share_text(r.board.utilisation()); }},
      {"rounds",
       [](const Run& r, double, size_t) { return fmt::format("{}", r.board.round_count); }},
      {"exposed", [](const Run& r, double, size_t) { return span_text(r.board.exposed_seconds); }},
      {"members", [](const Run& r, double, size_t) { return swarm_text(r.board); }},
      {"sent", [](const Run& r, double, size_t) { return sent_text(r.board); }},
      {"received", [](const Run& r, double,
                      size_t) { return amount_text(double(r.board.received_bytes), "B"); }},
      {"data", [](const Run& r, double, size_t) { return plain(r.board.passes, 3) + " passes"; }},
      {"checkpoint",
       [](const Run& r, double, size_t) {
         return r.board.checkpoints > 0 ? fmt::format("step {}", r.board.checkpoint_step)
                                        : std::string("none yet");
       }},
      {"incidents", [](const Run& r, double, size_t) { return incidents_text(r.board); }}};
  return rows;
}

std::string clock_text(double time) {
  return fmt::format("{:%H:%M:%S}Z", fmt::gmtime(std::time_t(time)));
}

// The newest of all runs, newest last.
std::string event_lines(const std::vector<WatchedRun>& runs, size_t width) {
  struct Told {
    double time;
    std::string text;
  };
  std::vector<Told> told;
  for (const WatchedRun& run : runs) {
    for (const observe::BoardEvent& event : run.board.events) {
      const std::string cause = event.cause.empty() ? "" : ": " + event.cause;
      told.push_back({event.time, fmt::format("{}  {}  {}  {}{}", clock_text(event.time),
                                              run.board.node, event.kind, event.text, cause)});
    }
  }
  std::ranges::stable_sort(told, {}, &Told::time);
  std::string lines;
  const size_t first = told.size() - std::min(told.size(), kEventsShown);
  for (size_t i = first; i < told.size(); ++i) lines += fitted(told[i].text, width) + "\n";
  return lines;
}

std::string one_table(std::span<const WatchedRun> runs, double now, size_t column) {
  const auto line = [&](const std::string& label, const auto& value_of) {
    std::string text = padded(label, kLabelWidth);
    for (const WatchedRun& run : runs) text += padded(value_of(run), column - 2) + "  ";
    text.erase(text.find_last_not_of(' ') + 1);
    return text + "\n";
  };
  // The end of a path tells more than its beginning.
  std::string table = line("", [&](const WatchedRun& run) {
    const std::string& path = run.directory;
    return path.size() <= column - 2 ? path : "..." + path.substr(path.size() - (column - 5));
  });
  for (const TableRow& row : table_rows())
    table +=
        line(row.label, [&](const WatchedRun& run) { return row.value(run, now, column - 2); });
  return table;
}

}  // namespace

std::string status_table(const std::vector<WatchedRun>& runs, double now, size_t width) {
  const size_t room = std::max(width, kLabelWidth + kColumnWidthMin) - kLabelWidth;
  const size_t abreast = std::min(runs.size(), room / kColumnWidthMin);
  const size_t column = std::min(room / abreast, kColumnWidthMax);
  std::string text;
  for (size_t first = 0; first < runs.size(); first += abreast) {
    const auto some = std::span(runs).subspan(first, std::min(abreast, runs.size() - first));
    text += one_table(some, now, column) + "\n";
  }
  return text + event_lines(runs, width);
}

}  // namespace cli
