// Child processes that end with the object, and with its process.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <sys/types.h>

namespace train {

class Children {
 public:
  Children() = default;
  ~Children();  // Kills those that still run, and waits for them.
  Children(const Children&) = delete;
  Children& operator=(const Children&) = delete;

  // A copy of this process that runs `body` and ends; what it throws is logged under its name, from
  // warnings on. Not from a process with threads of its own. Throws resource_lost.
  void start(const std::string& name, const std::function<void()>& body);
  // Until `count` more have ended, each with exit code 0; throws resource_lost as soon as one ends
  // otherwise. REQUIRES: so many were started.
  void wait(int64_t count);

 private:
  std::map<pid_t, std::string> running_;
};

}  // namespace train
