// The server of a node's status: that each line counts once, wherever it came from.
#include "train/status_server.h"

#include <arpa/inet.h>
#include <fstream>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/json.h"
#include "support/catch.h"
#include "support/temporary_folder.h"

namespace {

std::string status_text(const train::StatusServer& server, const std::string& path) {
  const std::string url = server.url();
  const int port = std::stoi(url.substr(url.rfind(':') + 1));
  const int caller = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(uint16_t(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(connect(caller, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  const std::string request =
      "GET " + path + " HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n";
  REQUIRE(send(caller, request.data(), request.size(), MSG_NOSIGNAL) == ssize_t(request.size()));
  std::string answer;
  char buffer[4096];
  for (ssize_t count = 0; (count = recv(caller, buffer, sizeof(buffer), 0)) > 0;)
    answer.append(buffer, size_t(count));
  close(caller);
  REQUIRE(answer.starts_with("HTTP/1.1 200 "));
  return answer.substr(answer.find("\r\n\r\n") + 4);
}

int64_t told_integer(const train::StatusServer& server, const char* key) {
  const auto status = base::JsonValue::parse(status_text(server, "/status.json"));
  REQUIRE(status.ok());
  return *status->get(key)->as_integer();
}

std::string status_step(int64_t step) {
  return "{\"event\":\"inner_step\",\"time\":\"2026-01-31T12:00:00.000Z\",\"node\":\"n\","
         "\"tokens\":"
         "10,\"step\":" +
         std::to_string(step) + "}";
}

}  // namespace

TEST_CASE("status server: what the file held, and what came since, once each") {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("metrics.jsonl");
  std::ofstream(path) << status_step(1) << "\n" << status_step(2) << "\n{\"event\":\"inn";
  train::StatusServer server("127.0.0.1:0", "run", "node");
  REQUIRE(told_integer(server, "step") == 0);
  REQUIRE(status_text(server, "/metrics").find("node=\"node\"") != std::string::npos);
  REQUIRE(status_text(server, "/").starts_with("<!DOCTYPE html>"));
  server.begin_with(path);
  for (int64_t step = 3; step <= 50; ++step) {
    std::ofstream(path, std::ios::app) << "\n" << status_step(step);  // As MetricsFile does.
    server.put(status_step(step));
  }
  while (told_integer(server, "step") < 50) {
  }
  REQUIRE(told_integer(server, "tokens") == 500);
  REQUIRE(told_integer(server, "unreadable_lines") == 0);
}

TEST_CASE("status server: lines that nobody takes fill no memory and hold up nobody") {
  train::StatusServer server("127.0.0.1:0", "run", "node");
  const std::string line(1 << 20, 'x');
  for (int i = 0; i < 1000; ++i) server.put(line);  // There is no board yet.
  REQUIRE(server.waiting_bytes() <= train::StatusServer::kWaitingBytesMax);
}

TEST_CASE("status server: it ends while a file is read, and before any was") {
  const test::TemporaryFolder folder;
  const std::string path = folder.file("metrics.jsonl");
  {
    std::ofstream file(path);
    for (int64_t step = 0; step < 20'000; ++step) file << status_step(step) << "\n";
  }
  train::StatusServer reading("127.0.0.1:0", "run", "node");
  reading.begin_with(path);
  train::StatusServer idle("127.0.0.1:0", "run", "node");
}
