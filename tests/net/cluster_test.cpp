// Coordinator and members together, in a simulated world (tests/net/simulator.h), with the faults
// named one by one. Every commit is checked by the oracle in tests/net/fake_trainer.h; a scenario
// says what must come of it.
#include "net/cluster.h"

#undef CHECK
#include "support/catch.h"

namespace net {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

TEST_CASE("nodes train together and stay equal") {
  Cluster cluster(quick_cluster(1, 4));
  cluster.start_all();
  REQUIRE(cluster.reaches(10, minutes(2)));
  REQUIRE(cluster.violations() == "");
  REQUIRE(cluster.coordinator().report().members_lost == 0);
}

}  // namespace
}  // namespace net
