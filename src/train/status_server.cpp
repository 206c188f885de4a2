#include "train/status_server.h"

#include <filesystem>
#include <fmt/format.h>

#include "base/log.h"
#include "base/thread.h"
#include "base/version.h"
#include "net/types.h"
#include "observe/board_text.h"
#include "train/status_page.h"

namespace train {
namespace {

// As often as a text is made anew, at most.
constexpr std::chrono::milliseconds kTextAge(250);

// A page for a few people: little of everything.
http::ServerOptions options_of(const net::Endpoint& listen) {
  return {.address = listen.host,
          .port = listen.port,
          .connections = 8,
          .header_bytes_max = 16 << 10,
          .body_bytes_max = 1 << 10,
          .idle = std::chrono::milliseconds(2'000),
          .request = std::chrono::milliseconds(5'000),
          .write = std::chrono::milliseconds(5'000),
          .is_background = true};
}

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

int64_t size_of(const std::string& path) {
  std::error_code none;
  const auto bytes = std::filesystem::file_size(path, none);
  return none ? 0 : int64_t(bytes);
}

}  // namespace

StatusServer::StatusServer(const std::string& listen, const std::string& run,
                           const std::string& node)
    : server_(http::make_server(options_of(*net::parse_endpoint(listen)))) {
  board_.run = run;
  board_.node = node;
  add_routes();
  server_->start();
}

StatusServer::~StatusServer() {
  server_->stop();
  {
    std::lock_guard lock(box_mutex_);
    is_ending_ = true;
  }
  box_filled_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void StatusServer::begin_with(const std::string& metrics_path) {
  thread_ = std::thread([this, metrics_path, bytes = size_of(metrics_path)] {
    base::set_thread_name("status");
    keep_board(observe::MetricsTail(metrics_path), bytes);
  });
}

void StatusServer::put(std::string_view line) {
  {
    std::lock_guard lock(box_mutex_);
    if (box_bytes_ + line.size() > kWaitingBytesMax) {
      if (!std::exchange(is_behind_, true))
        base::log_warning("the status page cannot keep up: what it shows is not all there was");
      return;
    }
    box_bytes_ += line.size();
    box_.emplace_back(line);
  }
  box_filled_.notify_one();
}

size_t StatusServer::waiting_bytes() {
  std::lock_guard lock(box_mutex_);
  return box_bytes_;
}

void StatusServer::keep_board(observe::MetricsTail history, int64_t history_bytes) {
  history.read([this](std::string_view line) { add_to_board(line); }, {}, history_bytes);
  while (!is_ending_) {
    for (const std::string& line : take_lines()) add_to_board(line);
  }
}

void StatusServer::add_to_board(std::string_view line) {
  if (is_ending_) return;
  std::lock_guard lock(board_mutex_);
  board_.add(line);
}

// Waits for some.
std::vector<std::string> StatusServer::take_lines() {
  std::unique_lock lock(box_mutex_);
  box_filled_.wait(lock, [this] { return is_ending_ || !box_.empty(); });
  box_bytes_ = 0;
  return std::exchange(box_, {});
}

std::string StatusServer::text_of(Text& kept,
                                  const std::function<std::string(const observe::Board&)>& make) {
  std::lock_guard lock(board_mutex_);
  const auto now = std::chrono::steady_clock::now();
  if (kept.text.empty() || now - kept.made >= kTextAge) kept = {now, make(board_)};
  return kept.text;
}

void StatusServer::add_routes() {
  server_->route("GET", "/", [](const http::Request&) {
    return http::Answer{.type = "text/html; charset=utf-8", .body = kStatusPage};
  });
  server_->route("GET", "/status.json", [this](const http::Request&) {
    return http::Answer{.body = text_of(json_, [](const observe::Board& board) {
                          return observe::status_json(board, seconds_since_1970());
                        })};
  });
  server_->route("GET", "/metrics", [this](const http::Request&) {
    return http::Answer{.type = observe::kPrometheusType,
                        .body = text_of(metrics_, [](const observe::Board& board) {
                          return observe::prometheus_text(board, base::version());
                        })};
  });
  server_->set_error_answer([](int status, const std::string& message) {
    return http::Answer{
        .status = status, .type = "text/plain; charset=utf-8", .body = message + "\n"};
  });
}

}  // namespace train
