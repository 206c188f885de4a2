// One function per command: adds it to the command line with its options and what it does. A
// command throws base::Error.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace cli {

using StopRequested = std::function<bool()>;
// From its call on SIGINT, SIGTERM and SIGHUP do not end the process at once: the result says
// whether one came. A command that has nothing to put in order does not call it, and just ends.
using WatchForStop = std::function<StopRequested()>;

void add_train(CLI::App& app, const WatchForStop& watch_for_stop);
void add_coordinate(CLI::App& app, const WatchForStop& watch_for_stop);
void add_prepare(CLI::App& app, const WatchForStop& watch_for_stop);
void add_evaluate(CLI::App& app);
void add_generate(CLI::App& app);
void add_serve(CLI::App& app, const WatchForStop& watch_for_stop);
void add_convert(CLI::App& app, const WatchForStop& watch_for_stop);
void add_doctor(CLI::App& app);
void add_status(CLI::App& app);
void add_plot(CLI::App& app);
void add_inspect(CLI::App& app);
void add_inspect_model(CLI::App& inspect);
void add_keys(CLI::App& app);
void add_bench(CLI::App& app);
void add_bench_all_reduce(CLI::App& bench);
void add_bench_decode(CLI::App& bench);
void add_bench_lab(CLI::App& bench);
void add_simulate(CLI::App& app);

}  // namespace cli
