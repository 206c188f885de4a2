// bench lab: any program on the nodes of a small internet inside this machine.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/commands.h"
#include "train/net_lab.h"

namespace cli {

void add_bench_lab(CLI::App& bench) {
  auto* lab = bench.add_subcommand(
      "lab",
      "Run a command once on each node of a small internet inside this machine: nodes know their "
      "number from $ATOLL_LAB_NODE and reach number i at 10.77.0.(i + 1)");
  auto options = std::make_shared<train::NetLabOptions>();
  auto command = std::make_shared<std::vector<std::string>>();
  lab->add_option("--nodes", options->nodes, "Nodes")
      ->capture_default_str()
      ->check(CLI::Range(1, 200));
  lab->add_option("--rate-mbit", options->rate_mbit, "What a node may send; 0: any")
      ->check(CLI::NonNegativeNumber);
  lab->add_option("--rtt-ms", options->round_trip_ms, "Round trip between two nodes")
      ->check(CLI::NonNegativeNumber);
  lab->add_option("--loss", options->loss, "Share of packets that are lost")
      ->check(CLI::Range(0.0, 1.0));
  lab->add_option("command", *command, "After --: the program and its arguments")->required();
  lab->callback([options, command] { train::run_in_lab(*options, *command); });
}

}  // namespace cli
