// The command line. Each command reads its options, calls one function of train/ or data/, and
// prints; nothing is decided here.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <string_view>
#include <sys/resource.h>
#include <unistd.h>

#include "base/error.h"
#include "base/version.h"
#include "cli/commands.h"

namespace {

// The one thing that a signal handler may touch.
volatile std::sig_atomic_t stop_signal = 0;

cli::StopRequested watch_for_stop() {
  struct sigaction action {};
  action.sa_handler = [](int signal) { stop_signal = signal; };
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  // The terminal is gone; under nohup that is no reason to end.
  struct sigaction inherited {};
  if (sigaction(SIGHUP, nullptr, &inherited) == 0 && inherited.sa_handler != SIG_IGN)
    sigaction(SIGHUP, &action, nullptr);
  return [] { return stop_signal != 0; };
}

void ignore_signals() {
  struct sigaction action {};
  action.sa_handler = SIG_IGN;
  // A closed pipe or socket and a file at its size limit are error values, not deaths.
  sigaction(SIGPIPE, &action, nullptr);
  sigaction(SIGXFSZ, &action, nullptr);
}

// A page of a mapped file (a dataset, a checkpoint) that the disk does not give: nothing can be
// thrown from here, and only what is safe in a signal handler may be called.
void install_bus_error_handler() {
  struct sigaction action {};
  action.sa_handler = [](int) {
    constexpr std::string_view kText =
        "atoll: a mapped file cannot be read: the disk has failed, or the file was cut short\n"
        "Hint: see the kernel's log, and start again once the file can be read.\n";
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText.data(), kText.size());
    _exit(int(base::ExitCode::kResourceLost));
  };
  sigaction(SIGBUS, &action, nullptr);
}

// Links to other nodes and files share them. The soft limit is often 1024 for the sake of programs
// that use select(2), which this one does not.
void use_all_descriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int fail(const base::Error& error) {
  std::cerr << "atoll: " << error.what() << "\n";
  if (!error.hint().empty()) std::cerr << "Hint: " << error.hint() << "\n";
  return int(error.code());
}

}  // namespace

int main(int argument_count, char** arguments) {
  ignore_signals();
  install_bus_error_handler();
  use_all_descriptors();
  CLI::App app(
      "Atoll trains large language models on machines that have only the internet in common.");
  app.require_subcommand(1);
  app.set_version_flag("--version", base::version());
  cli::add_train(app, watch_for_stop);
  cli::add_coordinate(app, watch_for_stop);
  cli::add_prepare(app, watch_for_stop);
  cli::add_evaluate(app);
  cli::add_generate(app);
  cli::add_serve(app, watch_for_stop);
  cli::add_convert(app, watch_for_stop);
  cli::add_doctor(app);
  cli::add_status(app);
  cli::add_plot(app);
  cli::add_inspect(app);
  cli::add_keys(app);
  cli::add_bench(app);
  cli::add_simulate(app);
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
