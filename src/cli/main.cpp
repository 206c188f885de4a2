// The command line. Each command reads its options, calls one function of train/ or data/, and
// prints; nothing is decided here.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <iostream>

#include "base/error.h"
#include "cli/commands.h"

namespace {

// The one thing that a signal handler may touch.
volatile std::sig_atomic_t stop_signal = 0;

cli::StopRequested watch_for_stop() {
  struct sigaction action {};
  action.sa_handler = [](int signal) { stop_signal = signal; };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  return [] { return stop_signal != 0; };
}

void ignore_signals() {
  struct sigaction action {};
  action.sa_handler = SIG_IGN;
  // A closed pipe or socket and a file at its size limit are error values, not deaths.
  sigaction(SIGPIPE, &action, nullptr);
  sigaction(SIGXFSZ, &action, nullptr);
}

int fail(const base::Error& error) {
  std::cerr << "atoll: " << error.what() << "\n";
  if (!error.hint().empty()) std::cerr << "Hint: " << error.hint() << "\n";
  return int(error.code());
}

}  // namespace

int main(int argument_count, char** arguments) {
  ignore_signals();
  CLI::App app(
      "Atoll trains large language models on machines that have only the internet in common.");
  app.require_subcommand(1);
  app.set_version_flag("--version", ATOLL_VERSION);
  cli::add_train(app, watch_for_stop);
  cli::add_coordinate(app, watch_for_stop);
  cli::add_prepare(app, watch_for_stop);
  cli::add_evaluate(app);
  cli::add_generate(app);
  cli::add_inspect(app);
  cli::add_bench(app);
  try {
    app.parse(argument_count, arguments);
    return int(base::ExitCode::kDone);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? int(base::ExitCode::kDone) : int(base::ExitCode::kBadInput);
  } catch (const base::Error& error) {
    return fail(error);
  } catch (const std::bad_alloc&) {
    return fail(base::resource_lost(
        "out of memory", "use a smaller model, training.micro_batch_rows or --document-bytes"));
  }
}
