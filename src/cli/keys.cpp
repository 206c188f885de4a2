// keys: the secret of a run, the keys of nodes, and the list of those that are let in.
#include "net/keys.h"

#include <CLI/CLI.hpp>
#include <ctime>
#include <fmt/format.h>
#include <iostream>
#include <memory>
#include <string>

#include "base/file.h"
#include "base/json.h"
#include "cli/commands.h"

namespace cli {
namespace {

struct KeyOptions {
  std::string file;
  bool json = false;
};

// A key that is lost cannot be had back, so none is ever written over.
void write_secret_file(const std::string& path, const std::string& text) {
  const auto storage = base::make_disk_storage();
  if (storage->exists(path))
    throw base::bad_input(path + " is there already", "choose another name, or remove it first");
  storage->write_private(path, text);
}

std::shared_ptr<KeyOptions> add_options(CLI::App& command, const std::string& what) {
  auto options = std::make_shared<KeyOptions>();
  command.add_option("file", options->file, what)->required();
  command.add_flag("--json", options->json, "Print JSON");
  return options;
}

void add_new_run(CLI::App& keys) {
  auto* command = keys.add_subcommand(
      "new-run", "Make the secret of a run; whoever has the file can be one of its nodes");
  const auto options = add_options(*command, "Where to write it");
  command->callback([options] {
    write_secret_file(options->file, net::RunSecret::make().file_text());
    if (options->json) {
      std::cout
          << base::JsonWriter().begin_object().field("file", options->file).end_object().text()
          << std::endl;
      return;
    }
    std::cout << fmt::format(
        "{} holds the secret of a run. Copy it to every node and the coordinator (scp, chmod "
        "600),\n"
        "and name it there: --set node.run_secret_file={}. The line of digits in ATOLL_RUN_SECRET\n"
        "does as well.\n",
        options->file, options->file);
  });
}

void add_new_node(CLI::App& keys) {
  auto* command = keys.add_subcommand(
      "new-node", "Make the key of a node, for a run with a list of keys; prints its public half");
  const auto options = add_options(*command, "Where to write the private key");
  command->callback([options] {
    const net::NodeKey key = net::NodeKey::make();
    write_secret_file(options->file, key.file_text());
    if (options->json) {
      std::cout << base::JsonWriter()
                       .begin_object()
                       .field("file", options->file)
                       .field("key", key.id().text())
                       .end_object()
                       .text()
                << std::endl;
    } else {
      std::cout << key.id().text() << std::endl;
    }
  });
}

std::string time_left(const net::AllowedKey& key) {
  if (key.until == 0) return "";
  const int64_t days = (key.until - int64_t(std::time(nullptr))) / (24 * 3600);
  if (key.until <= int64_t(std::time(nullptr))) return " (its time is over)";
  return fmt::format(" (for {} more days)", days);
}

void print_list(const std::vector<net::AllowedKey>& list) {
  base::JsonWriter out;
  out.begin_array();
  for (const net::AllowedKey& key : list) {
    out.begin_object().field("key", key.id.text()).field("name", key.name);
    if (key.until != 0) out.field("until", key.until);
    out.end_object();
  }
  out.end_array();
  std::cout << out.text() << std::endl;
}

void add_list(CLI::App& keys) {
  auto* command = keys.add_subcommand("list", "Check a list of keys, and print who is on it");
  const auto options = add_options(*command, "Lines of KEY NAME, or KEY NAME until YYYY-MM-DD");
  command->callback([options] {
    const auto storage = base::make_disk_storage();
    const auto list = net::parse_allowed_keys(storage->read_text(options->file));
    if (!list.ok()) throw base::bad_input(fmt::format("{}: {}", options->file, list.reason()));
    if (options->json) return print_list(*list);
    for (const net::AllowedKey& key : *list)
      std::cout << fmt::format("{} {}{}\n", key.id.text(), key.name, time_left(key));
    std::cout << std::flush;
  });
}

}  // namespace

void add_keys(CLI::App& app) {
  auto* command = app.add_subcommand("keys", "Who may be in a run: its secret, or keys of nodes");
  command->require_subcommand(1);
  add_new_run(*command);
  add_new_node(*command);
  add_list(*command);
}

}  // namespace cli
