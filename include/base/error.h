// How Atoll fails. There are three kinds of failure, and they are never mixed.
//
// Bug: an invariant of our own does not hold. CHECK(...) prints and aborts. Bytes from outside
// (disk, network, config) can never reach a CHECK.
//
// Bad input or broken machine: a wrong config, a corrupt file, a full disk, a lost device. Throws
// base::Error, which is caught in main() and at the border of a thread, nowhere else. It carries a
// hint and an exit code.
//
// Expected event: a peer is gone, bytes from the network are garbage, a deadline passed. The
// function returns a base::Result and the caller deals with it at once.
#pragma once

#include <fmt/format.h>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>

namespace base {

// What the process returns. systemd's Restart=on-failure relies on kResourceLost being different
// from kBadInput.
enum class ExitCode : int {
  kDone = 0,
  kBug = 1,
  kBadInput = 2,      // A restart would fail in the same way.
  kResourceLost = 3,  // A restart makes sense.
};

// `message` says what was tried, on what, and what was found; `hint` says what to do about it (may
// be empty).
class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message, std::string hint = {})
      : std::runtime_error(message), code_(code), hint_(std::move(hint)) {}

  ExitCode code() const { return code_; }
  const std::string& hint() const { return hint_; }

 private:
  ExitCode code_;
  std::string hint_;
};

// Both return an Error to be thrown: `throw base::bad_input(fmt::format(...), "hint");`
inline Error bad_input(const std::string& message, std::string hint = {}) {
  return Error(ExitCode::kBadInput, message, std::move(hint));
}
inline Error resource_lost(const std::string& message, std::string hint = {}) {
  return Error(ExitCode::kResourceLost, message, std::move(hint));
}

// Why an expected event happened; converts into any Result.
struct Failure {
  std::string reason;
};

// A value or a Failure. Asking for the one that is not there is a bug.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}            // NOLINT: implicit on purpose.
  Result(Failure failure) : state_(std::move(failure)) {}  // NOLINT: implicit on purpose.

  bool ok() const { return std::holds_alternative<T>(state_); }
  explicit operator bool() const { return ok(); }

  T& value() { return std::get<T>(state_); }
  const T& value() const { return std::get<T>(state_); }
  T& operator*() { return value(); }
  const T& operator*() const { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const std::string& reason() const { return std::get<Failure>(state_).reason; }

 private:
  std::variant<T, Failure> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Failure failure) : failure_(std::move(failure)) {}  // NOLINT: implicit on purpose.

  bool ok() const { return !failure_; }
  explicit operator bool() const { return ok(); }
  const std::string& reason() const { return failure_->reason; }

 private:
  std::optional<Failure> failure_;
};

// Prints the message with its place and a backtrace to stderr and aborts.
[[noreturn]] void report_bug(const char* file, int line, const char* condition,
                             const std::string& message);

}  // namespace base

// CHECK(condition) or CHECK(condition, "format", values...): an invariant of our own, on in every
// build.
#define CHECK(condition, ...)                                                                   \
  do {                                                                                          \
    if (!(condition)) [[unlikely]]                                                              \
      ::base::report_bug(__FILE__, __LINE__, #condition, ::base::internal_format(__VA_ARGS__)); \
  } while (false)

namespace base {
inline std::string internal_format() {
  return {};
}
template <class... Values>
std::string internal_format(fmt::format_string<Values...> format, Values&&... values) {
  return fmt::format(format, std::forward<Values>(values)...);
}
}  // namespace base
