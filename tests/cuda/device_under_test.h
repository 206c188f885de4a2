// Which device the tests of CUDA operations run on: emulated_device.cpp or real_device.cpp.
#pragma once

#include <functional>
#include <vector>

#include "backend/backend.h"

namespace cuda_test {

// Plain attention, and products that are not tuned: quick to make, and the same bits in every run.
backend::Backend make_device_under_test(const std::string& attention = "plain");

// The ranks of a node: a GPU each if there are so many, else they share one.
std::vector<backend::Backend> make_ranks_under_test(int ranks);

// Calls it on a machine with so many GPUs: always if emulated, else if there are as many.
void with_gpus(int count, const std::function<void()>& body);

// How many steps a training test can afford.
int64_t affordable_steps();

// Emulated: calls it with the threads of kernels in order, reversed, shuffled and greedy. On a GPU,
// whose order nobody knows: three times.
void for_each_order(const std::function<void(const char* order)>& body);

}  // namespace cuda_test
