// What the network's threads tell, until the thread that writes the metrics takes it.
#pragma once

#include <chrono>
#include <mutex>
#include <vector>

#include "net/incident.h"

namespace train {

class IncidentBox {
 public:
  struct Entry {
    net::Incident incident;
    std::chrono::steady_clock::time_point at;
  };

  // Any thread. Whoever makes incidents on purpose fills no memory: of those that nobody has taken
  // the first ones are kept, and the others counted.
  void put(net::Incident incident);
  struct Content {
    std::vector<Entry> entries;
    int64_t dropped_count = 0;
  };
  Content take();

 private:
  std::mutex mutex_;
  Content content_;
};

}  // namespace train
