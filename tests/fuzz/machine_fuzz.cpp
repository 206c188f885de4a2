// Fuzz target for the two machines of the swarm: an input is a play, byte by byte, of what the
// world does to a coordinator or to a member. What must hold stands in machine/coordinator_play.h
// and machine/member_play.h.
//
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude -Isrc -Itests
//     tests/fuzz/machine_fuzz.cpp tests/fuzz/machine/*.cpp src/net/turn.cpp
//     src/net/{coordinator,exchange,wire}/*.cpp src/net/security/{certificate,keys}.cpp
//     src/net/member/{fragment_catch_up,member,member_rounds,registration,state_sync}.cpp
//     src/base/{error,hash,log,thread}.cpp -lfmt -lspdlog -lssl -lcrypto -lnuma -o machine_fuzz
//   ./machine_fuzz -max_len=4096 -len_control=0 -entropic=0 FOLDER tests/fuzz/corpus/machine
//
// The first byte of an input selects: even the coordinator, odd the member.
#include "base/hash.h"
#include "fuzz/machine/coordinator_play.h"
#include "fuzz/machine/member_play.h"
#include "fuzz/target.h"
#include "net/quiet_log.h"

// Any bytes are a play. With zeros alone all do what is next; what is damaged in them happens
// beside that.
std::vector<FuzzInput> valid_fuzz_inputs() {
  constexpr uint64_t kSeed = 12;
  base::Random random(kSeed);
  std::vector<FuzzInput> inputs;
  for (size_t i = 0; i < 6; ++i) {
    FuzzInput play(100 << (i / 2));
    const uint64_t zeros = i / 2;  // Of three.
    for (std::byte& byte : play) {
      if (random.below(3) >= zeros) byte = std::byte(uint8_t(random.next_u64()));
    }
    inputs.push_back(with_selector(i % 2, play));
    inputs.push_back(with_selector(i % 2, FuzzInput(play.size())));
  }
  return inputs;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t byte_count) {
  static const bool is_quiet = (net::quiet_log(), true);
  (void)is_quiet;
  const auto input = std::as_bytes(std::span(data, byte_count));
  if (input.empty()) return 0;
  net::Choices choices(input.subspan(1));
  if (int(input[0]) % 2 == 0) {
    net::play_coordinator(choices);
  } else {
    net::play_member(choices);
  }
  return 0;
}
