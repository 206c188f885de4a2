// Line charts as an SVG that stands alone, with a background that follows the reader's light or
// dark theme. The same arguments give the same text.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace observe {

struct ChartSeries {
  std::vector<std::pair<double, double>> points;  // Joined by a line in this order; all are finite.
  size_t colour = 0;                              // Index of a name in the legend.
  bool is_dashed = false;                         // With a mark at each point.
};

struct Chart {
  std::string title;
  std::vector<ChartSeries> series;
  bool is_share = false;  // The axis goes from 0 to 1, in percent.
};

// One above the other, over the same axis of steps. `legend`: a name per colour.
std::string svg_of(const std::vector<Chart>& charts, const std::vector<std::string>& legend);

}  // namespace observe
