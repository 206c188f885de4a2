// plot: loss and utilisation of runs, as a picture.
#include <CLI/CLI.hpp>
#include <cmath>
#include <fmt/format.h>
#include <memory>

#include "base/file.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/watched_runs.h"
#include "observe/svg_chart.h"

namespace cli {
namespace {

struct PlotCommand {
  std::vector<std::string> directories;
  std::string output;
};

observe::ChartSeries series_of(const observe::Curve& curve, size_t colour, bool is_dashed = false) {
  observe::ChartSeries series{.points = {}, .colour = colour, .is_dashed = is_dashed};
  for (const auto& point : curve.points()) series.points.emplace_back(point.x, point.mean());
  return series;
}

std::string legend_of(const WatchedRun& run) {
  const double share = run.board.utilisation();
  const std::string utilisation =
      std::isfinite(share) ? fmt::format(", utilisation {:.1f} %", 100 * share) : std::string();
  return fmt::format("{}: {} of {}, step {}, loss {:.4f}{}", run.directory, run.board.node,
                     run.board.run, run.board.step, run.board.loss, utilisation);
}

void run_plot(const PlotCommand& command) {
  WatchedRuns runs(command.directories);
  runs.refresh();
  observe::Chart loss{.title = "Loss over steps, nats per target (dashed: validation)",
                      .series = {}};
  observe::Chart utilisation{
      .title = "Utilisation over steps: share of the time in which no round stood in the way",
      .series = {},
      .is_share = true};
  std::vector<std::string> legend;
  for (const WatchedRun& run : runs.list()) {
    const size_t colour = legend.size();
    loss.series.push_back(series_of(run.board.loss_curve, colour));
    loss.series.push_back(series_of(run.board.validation_curve, colour, true));
    utilisation.series.push_back(series_of(run.board.utilisation_curve, colour));
    legend.push_back(legend_of(run));
  }
  const auto storage = base::make_disk_storage();
  storage->write_atomically(command.output, observe::svg_of({loss, utilisation}, legend));
  base::log_info("wrote {}", command.output);
}

}  // namespace

void add_plot(CLI::App& app) {
  auto* command = app.add_subcommand(
      "plot", "Loss and utilisation of one or more runs, as an SVG for browsers and documents");
  auto state = std::make_shared<PlotCommand>();
  command->add_option("directories", state->directories, "Run directories: a colour each")
      ->required();
  command->add_option("--output", state->output, "The picture's file, which is replaced")
      ->required();
  command->footer(
      "Example:\n"
      "  atoll plot runs/left runs/right --output loss.svg");
  command->callback([state] { run_plot(*state); });
}

}  // namespace cli
