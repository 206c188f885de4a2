// How a run goes, over HTTP, from the node that trains: `/` a page for people, `/status.json` what
// the page asks for, `/metrics` for Prometheus.
//
// Threads: the trainer's thread leaves its lines in a box, whose lock is held only for that; a
// thread of the server's own keeps the board; HTTP runs on threads that give way to everything
// else. What a browser does costs the run nothing but processor time that nobody else wants.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "http/server.h"
#include "observe/board.h"
#include "observe/metrics_tail.h"

namespace train {

class StatusServer {
 public:
  // Serves at once, what little is known before the node trains. Throws bad_input where `listen`
  // (host:port; port 0: one that is free) cannot be had, and where there is no HTTP in this
  // program.
  StatusServer(const std::string& listen, const std::string& run, const std::string& node);
  ~StatusServer();
  StatusServer(const StatusServer&) = delete;
  StatusServer& operator=(const StatusServer&) = delete;

  std::string url() const { return server_->url(); }

  // Once: what the file holds now is read, beside the caller; from here on the caller puts what
  // comes, after it has been written there or in its place.
  void begin_with(const std::string& metrics_path);
  // Any thread; returns at once. If the board cannot keep up, so many bytes wait, and further lines
  // are left out of it.
  static constexpr size_t kWaitingBytesMax = 16 << 20;
  void put(std::string_view line);
  size_t waiting_bytes();

 private:
  struct Text {
    std::chrono::steady_clock::time_point made{};
    std::string text;
  };

  void keep_board(observe::MetricsTail history, int64_t history_bytes);
  void add_to_board(std::string_view line);
  std::vector<std::string> take_lines();
  std::string text_of(Text& kept, const std::function<std::string(const observe::Board&)>& make);
  void add_routes();

  std::mutex box_mutex_;
  std::condition_variable box_filled_;
  std::vector<std::string> box_;
  size_t box_bytes_ = 0;
  std::atomic<bool> is_ending_ = false;
  bool is_behind_ = false;  // Lines were left out, and the log says so.

  std::mutex board_mutex_;
  observe::Board board_;
  Text json_, metrics_;  // As they were made last: whoever asks more often gets them again.

  std::unique_ptr<http::Server> server_;
  std::thread thread_;
};

}  // namespace train
