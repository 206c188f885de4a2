// One function per command: adds it to the command line with its options and what it does. A
// command throws base::Error.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace cli {

using StopRequested = std::function<bool()>;

void add_train(CLI::App& app, const StopRequested& stop_requested);
void add_coordinate(CLI::App& app, const StopRequested& stop_requested);
void add_prepare(CLI::App& app);
void add_evaluate(CLI::App& app);
void add_generate(CLI::App& app);
void add_inspect(CLI::App& app);
void add_bench(CLI::App& app);

}  // namespace cli
