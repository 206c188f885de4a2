// Runs the fuzz target without a fuzzer: over files if some are named, else over a few thousand
// inputs made from valid messages by random damage, the same in every run. A folder is one of
// inputs that a fuzzer has found, and goes before the others. So every build tests what only some
// build fuzzes.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/hash.h"
#include "fuzz/target.h"

namespace {

void run(const FuzzInput& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

FuzzInput damaged(FuzzInput input, base::Random& random) {
  for (uint64_t i = 0; i <= random.below(5); ++i) {
    const auto place = ptrdiff_t(random.below(input.size()));
    switch (random.below(4)) {
      case 0:
        input[size_t(place)] = std::byte(uint8_t(random.next_u64()));
        break;
      case 1:
        input[size_t(place)] ^= std::byte(uint8_t(1 << random.below(8)));
        break;
      case 2:
        input.insert(input.begin() + place, std::byte(uint8_t(random.next_u64())));
        break;
      default:
        input.resize(size_t(place) + 1);
    }
  }
  return input;
}

FuzzInput read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

}  // namespace

int main(int argument_count, char** arguments) {
  bool has_files = false;
  for (int i = 1; i < argument_count; ++i) {
    if (std::filesystem::is_directory(arguments[i])) {
      for (const auto& entry : std::filesystem::directory_iterator(arguments[i]))
        run(read_file(entry.path()));
    } else {
      has_files = true;
      run(read_file(arguments[i]));
    }
  }
  if (has_files) return 0;

  constexpr uint64_t kSeed = 11;
  constexpr int kVariants = 1000;
  base::Random random(kSeed);
  int64_t input_count = 0;
  for (const FuzzInput& input : valid_fuzz_inputs()) {
    run(input);
    for (int i = 0; i < kVariants; ++i) run(damaged(input, random));
    input_count += 1 + kVariants;
  }
  std::printf("%lld inputs from seed %llu\n", static_cast<long long>(input_count),
              static_cast<unsigned long long>(kSeed));
  return 0;
}
