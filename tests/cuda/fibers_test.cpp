// The emulation itself: that it runs what a GPU runs, and shows what a GPU would hide.
#include "emulation/fibers.h"

#include <numeric>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "cuda/launch.h"
#include "cuda/reduce.h"
#include "support/catch.h"

namespace {

using emulation::Order;

// out[block] = sum of the block's part of in.
void sum_kernel(float* out, const float* in) {
  float* const slots = cuda::shared_memory<float>();
  const float sum = cuda::block_sum(in[blockIdx.x * blockDim.x + threadIdx.x], slots);
  if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// Reads what the neighbour writes, without a barrier in between.
void racing_kernel(float* out) {
  float* const values = cuda::shared_memory<float>();
  values[threadIdx.x] = float(threadIdx.x);
  out[threadIdx.x] = values[(threadIdx.x + 1) % blockDim.x];
}

void uninitialised_kernel(float* out) {
  out[threadIdx.x] = cuda::shared_memory<float>()[threadIdx.x];
}

void overflow_kernel() {
  cuda::shared_memory<float>()[blockDim.x + threadIdx.x] = 1;
}

void divergent_kernel() {
  if (threadIdx.x < 16) __syncthreads();
  __syncwarp();
  if (threadIdx.x >= 16) __syncthreads();
}

void early_exit_kernel(int* out) {
  if (threadIdx.x == 63) return;
  __syncthreads();
  out[threadIdx.x] = 1;
}

void vote_kernel(int* out) {
  for (int i = 0; i < 6; ++i) {
    const int any = __syncthreads_or(int(threadIdx.x) == 40 && i % 2 == 1);
    out[i * int(blockDim.x) + int(threadIdx.x)] = any;
  }
}

// Uses the slots of a sum again without a barrier: right as long as warps keep step.
void hasty_kernel(float* out) {
  float* const slots = cuda::shared_memory<float>();
  const float first = cuda::block_sum(1.0f, slots);
  const float second = cuda::block_sum(2.0f, slots);
  out[threadIdx.x] = first + second;
}

// True if `body` ends the process by a signal.
bool dies(const std::function<void()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    fclose(stderr);
    body();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace

TEST_CASE("emulation: blocks, barriers and shuffles in every order") {
  std::vector<float> in(5 * 256), out(5);
  std::iota(in.begin(), in.end(), 0.0f);
  for (const Order order : {Order::kForward, Order::kReverse, Order::kShuffled, Order::kGreedy}) {
    emulation::set_order({.order = order, .seed = 3});
    cuda::launch(sum_kernel, {.blocks = 5, .threads = 256, .shared_bytes = 8 * sizeof(float)},
                 nullptr, out.data(), in.data());
    for (int block = 0; block < 5; ++block) {
      REQUIRE(out[size_t(block)] == float(256 * (256 * block) + 255 * 128));
    }
  }
  emulation::set_order({});
}

TEST_CASE("emulation: a race gives something else in another order") {
  std::vector<float> forward(64), reverse(64);
  const cuda::Grid grid{.blocks = 1, .threads = 64, .shared_bytes = 64 * sizeof(float)};
  cuda::launch(racing_kernel, grid, nullptr, forward.data());
  emulation::set_order({.order = Order::kReverse});
  cuda::launch(racing_kernel, grid, nullptr, reverse.data());
  emulation::set_order({});
  REQUIRE(forward != reverse);
}

TEST_CASE("emulation: a warp that runs ahead is seen in the greedy order") {
  std::vector<float> in_step(64), greedy(64);
  const cuda::Grid grid{.blocks = 1, .threads = 64, .shared_bytes = 2 * sizeof(float)};
  cuda::launch(hasty_kernel, grid, nullptr, in_step.data());
  emulation::set_order({.order = Order::kGreedy});
  cuda::launch(hasty_kernel, grid, nullptr, greedy.data());
  emulation::set_order({});
  REQUIRE(in_step == std::vector<float>(64, 64 + 128));
  REQUIRE(greedy != in_step);
}

TEST_CASE("emulation: shared memory that nobody wrote is NaN") {
  std::vector<float> out(32);
  cuda::launch(uninitialised_kernel, {.blocks = 1, .threads = 32, .shared_bytes = 128}, nullptr,
               out.data());
  for (const float value : out) REQUIRE(value != value);
}

TEST_CASE("emulation: threads that have ended count as arrived") {
  std::vector<int> out(64);
  cuda::launch(early_exit_kernel, {.blocks = 1, .threads = 64}, nullptr, out.data());
  REQUIRE(std::accumulate(out.begin(), out.end(), 0) == 63);
}

TEST_CASE("emulation: votes") {
  std::vector<int> out(6 * 64);
  for (const Order order : {Order::kForward, Order::kReverse, Order::kShuffled, Order::kGreedy}) {
    emulation::set_order({.order = order, .seed = 5});
    cuda::launch(vote_kernel, {.blocks = 1, .threads = 64}, nullptr, out.data());
    for (size_t i = 0; i < out.size(); ++i) REQUIRE(out[i] == int(i / 64 % 2));
  }
  emulation::set_order({});
}

TEST_CASE("emulation: what would hang or write astray ends the program") {
  REQUIRE(dies([] { cuda::launch(divergent_kernel, {.blocks = 1, .threads = 32}, nullptr); }));
  REQUIRE(dies([] {
    cuda::launch(overflow_kernel, {.blocks = 1, .threads = 16, .shared_bytes = 64}, nullptr);
  }));
}
