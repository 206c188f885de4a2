// Pictures: what is in them, and what never is.
#include "observe/svg_chart.h"

#include "support/catch.h"

namespace {

int64_t occurrences(const std::string& text, const std::string& what) {
  int64_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

}  // namespace

TEST_CASE("svg chart: a line per series, in the colour of its name") {
  const observe::Chart loss{.title = "Loss <&>",
                            .series = {{.points = {{1, 5}, {100, 2}}, .colour = 0},
                                       {.points = {{1, 4}, {100, 3}}, .colour = 1},
                                       {.points = {{50, 3}}, .colour = 1, .is_dashed = true}}};
  const observe::Chart share{
      .title = "Share", .series = {{.points = {{1, 0.25}, {100, 0.5}}}}, .is_share = true};
  const std::string svg = observe::svg_of({loss, share}, {"a <b>", "c"});
  REQUIRE(svg.starts_with("<svg "));
  REQUIRE(svg.ends_with("</svg>\n"));
  REQUIRE(occurrences(svg, "<polyline") == 4);
  REQUIRE(occurrences(svg, "<circle") == 1);
  REQUIRE(svg.find("Loss &lt;&amp;>") != std::string::npos);
  REQUIRE(svg.find("a &lt;b>") != std::string::npos);
  REQUIRE(svg.find(">100 %<") != std::string::npos);
  REQUIRE(svg.find("prefers-color-scheme: dark") != std::string::npos);
  REQUIRE(svg == observe::svg_of({loss, share}, {"a <b>", "c"}));
}

TEST_CASE("svg chart: the first and last point of a line lie at its chart's edges") {
  const std::string svg =
      observe::svg_of({{.title = "x", .series = {{.points = {{0, 1}, {10, 3}}}}}}, {});
  REQUIRE(svg.find("points=\"64.0,226.0 740.0,34.0\"") != std::string::npos);
}

TEST_CASE("svg chart: nothing, one point, and equal values") {
  REQUIRE(observe::svg_of({{.title = "x", .series = {}}}, {}).find("Nothing to show.") !=
          std::string::npos);
  for (const double value : {0.0, 5.0, -1e-9, 1e300}) {
    for (const auto& points : {std::vector<std::pair<double, double>>{{7, value}},
                               std::vector<std::pair<double, double>>{{7, value}, {8, value}}}) {
      const std::string svg = observe::svg_of({{.title = "x", .series = {{.points = points}}}}, {});
      REQUIRE(svg.find("nan") == std::string::npos);
      REQUIRE(svg.find("inf") == std::string::npos);
      REQUIRE(occurrences(svg, "<text") > 4);
      REQUIRE(occurrences(svg, "<text") < 40);
    }
  }
}
