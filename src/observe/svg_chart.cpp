#include "observe/svg_chart.h"

#include <algorithm>
#include <cmath>
#include <fmt/format.h>

namespace observe {
namespace {

constexpr double kWidth = 760, kLeft = 64, kRight = 740;
constexpr double kChartHeight = 260, kAbove = 34, kBelow = 34;  // Of it, title and axis.
constexpr double kLegendLine = 18;

constexpr const char* kLight[] = {"#0b62a4", "#c8500a", "#0a7d57", "#a3408a", "#6b6b00", "#555555"};
constexpr const char* kDark[] = {"#6db6f2", "#f59a5c", "#4fcf9f", "#e08fc9", "#cfcf4a", "#b5b5b5"};
constexpr size_t kColours = std::size(kLight);

std::string as_xml(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '<') {
      result += "&lt;";
    } else if (c == '&') {
      result += "&amp;";
    } else {
      result += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
    }
  }
  return result;
}

struct Extent {
  double low = 0, high = 0;
  bool is_empty = true;

  void include(double value) {
    low = is_empty ? value : std::min(low, value);
    high = is_empty ? value : std::max(high, value);
    is_empty = false;
  }
  void widen() {
    if (high > low) return;
    const double around = low == 0 ? 1 : std::abs(low) / 10;
    low -= around;
    high += around;
  }
};

// About `count` round numbers within.
std::vector<double> ticks_of(const Extent& extent, int count) {
  const double rough = (extent.high - extent.low) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.0, 1.0})
    if (factor * power >= rough) step = factor * power;
  std::vector<double> ticks;
  for (double i = std::ceil(extent.low / step); i * step <= extent.high + step * 1e-9; ++i)
    ticks.push_back(i * step);
  return ticks;
}

// Numbers to places of one chart.
struct Frame {
  Extent x, y;
  double top = 0, bottom = 0;

  double across(double value) const {
    return kLeft + (value - x.low) / (x.high - x.low) * (kRight - kLeft);
  }
  double up(double value) const {
    return bottom - (value - y.low) / (y.high - y.low) * (bottom - top);
  }
};

std::string text_at(double x, double y, std::string_view kind, std::string_view text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"{}\">{}</text>\n", x, y, kind,
                     as_xml(text));
}

std::string axes(const Frame& frame, bool is_share) {
  std::string svg;
  for (const double y : ticks_of(frame.y, 5)) {
    svg += fmt::format(
        "<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" class=\"grid\"/>\n", kLeft,
        kRight, frame.up(y), frame.up(y));
    const std::string label =
        is_share ? fmt::format("{:.4g} %", 100 * y) : fmt::format("{:.4g}", y);
    svg += text_at(kLeft - 8, frame.up(y) + 4, "end", label);
  }
  for (const double x : ticks_of(frame.x, 6))
    svg += text_at(frame.across(x), frame.bottom + 18, "middle", fmt::format("{:.6g}", x));
  return svg;
}

std::string line_of(const ChartSeries& series, const Frame& frame) {
  if (series.points.empty()) return {};
  std::string places, marks;
  const size_t colour = series.colour % kColours;
  for (const auto& [x, y] : series.points) {
    const double across = frame.across(x), up = frame.up(y);
    places += fmt::format("{}{:.1f},{:.1f}", places.empty() ? "" : " ", across, up);
    if (series.is_dashed || series.points.size() == 1)
      marks += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" class=\"c{}\"/>\n", across,
                           up, colour);
  }
  return fmt::format("<polyline points=\"{}\" class=\"c{}{}\"/>\n", places, colour,
                     series.is_dashed ? " dashed" : "") +
         marks;
}

std::string chart_at(const Chart& chart, const Extent& steps, double top) {
  Frame frame{.x = steps, .y = {}, .top = top + kAbove, .bottom = top + kChartHeight - kBelow};
  if (chart.is_share) frame.y = {.low = 0, .high = 1, .is_empty = false};
  for (const ChartSeries& series : chart.series)
    for (const auto& point : series.points) frame.y.include(point.second);
  std::string svg = text_at(kLeft, top + 22, "title", chart.title);
  if (frame.y.is_empty) return svg + text_at(kLeft, top + 48, "", "Nothing to show.");
  frame.y.widen();
  svg += axes(frame, chart.is_share);
  for (const ChartSeries& series : chart.series) svg += line_of(series, frame);
  return svg;
}

std::string theme(const char* paper, const char* text, const char* grid,
                  const char* const* colours) {
  std::string css = fmt::format(
      ".paper {{ fill: {} }}\ntext {{ fill: {} }}\n.grid {{ stroke: {} }}\n", paper, text, grid);
  for (size_t i = 0; i < kColours; ++i)
    css += fmt::format(".c{} {{ stroke: {}; fill: {} }}\n", i, colours[i], colours[i]);
  return css;
}

std::string style() {
  return "<style>\ntext { font: 12px sans-serif }\n.title { font-size: 14px; font-weight: bold }\n"
         ".middle { text-anchor: middle }\n.end { text-anchor: end }\n" +
         theme("#ffffff", "#222222", "#e0e0e0", kLight) +
         "@media (prefers-color-scheme: dark) {\n" + theme("#14171c", "#dddddd", "#343a42", kDark) +
         "}\npolyline { fill: none !important; stroke-width: 1.8 }\n.dashed { stroke-dasharray: 6 "
         "4 "
         "}\n</style>\n";
}

}  // namespace

std::string svg_of(const std::vector<Chart>& charts, const std::vector<std::string>& legend) {
  Extent steps;
  for (const Chart& chart : charts)
    for (const ChartSeries& series : chart.series)
      for (const auto& point : series.points) steps.include(point.first);
  steps.widen();
  const double height =
      kChartHeight * double(charts.size()) + kLegendLine * double(legend.size()) + 16;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
      "height=\"{1}\" role=\"img\">\n",
      kWidth, height);
  svg += style() + "<rect width=\"100%\" height=\"100%\" class=\"paper\"/>\n";
  for (size_t i = 0; i < charts.size(); ++i)
    svg += chart_at(charts[i], steps, kChartHeight * double(i));
  for (size_t i = 0; i < legend.size(); ++i) {
    const double y = kChartHeight * double(charts.size()) + kLegendLine * double(i) + 12;
    svg +=
        fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"14\" height=\"4\" class=\"c{}\"/>\n",
                    kLeft, y - 6, i % kColours);
    svg += text_at(kLeft + 22, y, "", legend[i]);
  }
  return svg + "</svg>\n";
}

}  // namespace observe
