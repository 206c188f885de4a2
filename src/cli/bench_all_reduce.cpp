// bench allreduce: how well rounds fill the lines between nodes.
#include "train/bench_all_reduce.h"

#include <CLI/CLI.hpp>
#include <cmath>
#include <fmt/format.h>
#include <iostream>
#include <memory>

#include "base/json.h"
#include "base/math.h"
#include "cli/commands.h"

namespace cli {
namespace {

using train::AllReduceBenchOptions;
using train::AllReduceBenchReport;

void print_json(const AllReduceBenchOptions& options, const AllReduceBenchReport& report) {
  base::JsonWriter out;
  out.begin_object()
      .field("peers", options.peers)
      .field("elements", report.elements)
      .field("codec", options.codec)
      .field("plan", report.plan)
      .field("estimated_seconds", report.estimated_seconds)
      .field("regions", options.regions)
      .field("region_rate_mbit", options.region_rate_mbit)
      .field("region_rtt_ms", options.region_round_trip_ms)
      .field("rate_mbit", options.rate_mbit)
      .field("rtt_ms", options.round_trip_ms)
      .field("loss", options.loss)
      .field("tls", !options.is_plain)
      .field("network", report.network);
  if (!report.network_problem.empty()) out.field("network_problem", report.network_problem);
  out.field("packets_overflowed", report.packets_overflowed)
      .field("repetitions", options.repetitions)
      .field("seconds", report.seconds)
      .field("exposed_seconds", report.exposed_seconds)
      .field("plain_tcp_seconds", report.plain_tcp_seconds)
      .field("ideal_seconds", report.ideal_seconds)
      .field("efficiency", report.efficiency)
      .field("relative_rms_error", report.relative_rms_error)
      .field("bytes_sent", report.bytes_sent)
      .field("peak_memory_bytes", report.peak_memory_bytes)
      .field("round_memory_bytes", report.round_memory_bytes)
      .field("loop_ns_per_parameter", report.loop_ns_per_parameter)
      .field("worker_ns_per_parameter", report.worker_ns_per_parameter)
      .end_object();
  std::cout << out.text() << std::endl;
}

void print_text(const AllReduceBenchOptions& options, const AllReduceBenchReport& report) {
  if (!report.network_problem.empty()) {
    std::cout << fmt::format("over loopback, whose lines cannot be shaped here: {}\n",
                             report.network_problem);
  }
  std::cout << fmt::format(
      "{} peers, {:.1f} MiB as {}, {} plan, {}: {:.3f} s from open to commit, {:.3f} s with "
      "looking at the parameters and applying; plain TCP {:.3f} s\n",
      options.peers, options.mib, options.codec, report.plan, report.network, report.seconds,
      report.exposed_seconds, report.plain_tcp_seconds);
  if (std::isfinite(report.ideal_seconds)) {
    std::cout << fmt::format("the line needs {:.3f} s for it: efficiency {:.1f} %\n",
                             report.ideal_seconds, 100 * report.efficiency);
  }
  std::cout << fmt::format(
      "{:.1f} MiB sent by a peer, relative RMS error {:.3g}; peak memory {:.0f} MiB, of which the "
      "rounds {:.0f}\n",
      double(report.bytes_sent) / double(base::kMiB), report.relative_rms_error,
      double(report.peak_memory_bytes) / double(base::kMiB),
      double(report.round_memory_bytes) / double(base::kMiB));
  std::cout << fmt::format(
      "processor time of a parameter: {:.2f} ns to move its bytes, {:.2f} ns to check, sum and "
      "hash "
      "them; so the loop thread alone would bear {:.1f} Gbit/s in each direction\n",
      report.loop_ns_per_parameter, report.worker_ns_per_parameter,
      8 * double(report.bytes_sent) / double(report.elements) / report.loop_ns_per_parameter);
}

}  // namespace

void add_bench_all_reduce(CLI::App& bench) {
  auto* command = bench.add_subcommand(
      "allreduce",
      "Rounds of several nodes as processes of this machine, over lines of a given rate and length "
      "where network namespaces are allowed");
  auto options = std::make_shared<AllReduceBenchOptions>();
  auto json = std::make_shared<bool>(false);
  command->add_option("--peers", options->peers, "Nodes")->capture_default_str();
  command->add_option("--mib", options->mib, "fp32 parameters that are synchronised")
      ->capture_default_str()
      ->check(CLI::Range(0.004, 65'536.0));
  command->add_option("--codec", options->codec, "As outer.codec")->capture_default_str();
  command->add_option("--repetitions", options->repetitions, "Timed rounds; medians count")
      ->capture_default_str();
  command
      ->add_option("--rate-mbit", options->rate_mbit,
                   "Of each node's line, in each direction; 0: what the machine carries")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--rtt-ms", options->round_trip_ms, "Round trip between two nodes")
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--regions", options->regions,
                   "In which the nodes lie by turns; the nodes of one share the line to the others")
      ->check(CLI::Range(1, 64));
  command->add_option("--region-rate-mbit", options->region_rate_mbit, "Of that line; 0: any")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--region-rtt-ms", options->region_round_trip_ms, "On top, over that line")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--plan", options->plan, "As swarm.plan")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "direct", "two-level", "ring"}));
  command->add_option("--loss", options->loss, "Share of packets that are lost")
      ->check(CLI::Range(0.0, 1.0));
  command->add_flag("--plain", options->is_plain, "Without TLS, to see what that costs");
  command->add_flag("--json", *json, "Print the report as JSON");
  command->callback([options, json] {
    const AllReduceBenchReport report = train::bench_all_reduce(*options);
    *json ? print_json(*options, report) : print_text(*options, report);
  });
}

}  // namespace cli
