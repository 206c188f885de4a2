// The tables and masks of packed documents, against the definition.
#include "cuda/documents.h"

#include "cuda/attention_case.h"
#include "cuda/cuda_backend.h"
#include "cuda/device_under_test.h"

using namespace cuda_test;

namespace {

constexpr std::array<int64_t, 4> kStrides{1, 7, int64_t{1} << 33, 40};

std::vector<int64_t> download_offsets(Side& side, const int64_t* source, int64_t count) {
  std::vector<int64_t> values(static_cast<size_t>(count));
  side.device().copy(values.data(), source, count * 8, side.stream());
  side.device().synchronize(side.stream());
  return values;
}

void require_table(const AttentionCase& a, int64_t entries) {
  INFO(a.describe() << " entries " << entries);
  std::vector<int32_t> begins, starts = a.document_start();
  for (int32_t n = 0; n < a.B * a.T; ++n)
    if (starts[size_t(n)] == n % a.T) begins.push_back(n);
  REQUIRE(int64_t(begins.size()) <= entries);
  begins.resize(size_t(entries) + 1, int32_t(a.B * a.T));

  for_each_order([&](const char* order) {
    INFO("threads " << order);
    Side side(make_device_under_test());
    const auto memory = side.device().allocate(cuda::DocumentTable::byte_count(entries), "table");
    const auto table = cuda::DocumentTable::in(memory->data(), entries);
    cuda::make_document_table(table,
                              {.document_start = side.int32(starts, {a.B * a.T}).as<int32_t>(),
                               .token_count = a.B * a.T,
                               .sequence_length = a.T,
                               .entries = entries,
                               .strides = kStrides},
                              cuda::handle_of(side.stream()));
    const Tensor lengths{table.lengths, DType::kInt32, {entries}};
    const Values found = side.download(lengths);
    for (int64_t e = 0; e < entries; ++e)
      REQUIRE(found[size_t(e)] == begins[size_t(e) + 1] - begins[size_t(e)]);
    for (size_t i = 0; i < kStrides.size(); ++i) {
      std::vector<int64_t> expected;
      for (const int32_t begin : begins) expected.push_back(begin * kStrides[i]);
      REQUIRE(download_offsets(side, table.offsets[i], entries + 1) == expected);
    }
  });
}

}  // namespace

TEST_CASE("a document table has every document's place, and empty entries behind") {
  require_table({.B = 1, .T = 1}, 1);
  require_table({.B = 3, .T = 7, .document_mean = 1}, 21);       // As many entries as documents.
  require_table({.B = 2, .T = 512, .document_mean = 1}, 1024);   // One for the last thread, too.
  require_table({.B = 5, .T = 1500, .document_mean = 200}, 64);  // Several tokens for each thread.
}

TEST_CASE("the arrays of a document table are 16-byte aligned, apart, and inside its bytes") {
  alignas(16) static std::array<char, 1 << 16> memory;
  for (const int64_t entries : {1, 2, 3, 4, 31, 32, 128, 1000}) {
    const int64_t byte_count = cuda::DocumentTable::byte_count(entries);
    INFO("entries " << entries << ", " << byte_count << " bytes");
    const auto table = cuda::DocumentTable::in(memory.data(), entries);
    // {begin, end}, in bytes.
    std::vector<std::pair<int64_t, int64_t>> arrays;
    const auto add = [&](const auto* array, int64_t count) {
      const int64_t begin = reinterpret_cast<const char*>(array) - memory.data();
      arrays.emplace_back(begin, begin + count * int64_t(sizeof(*array)));
    };
    for (const int64_t* offsets : table.offsets) add(offsets, entries + 1);
    add(table.begins, entries + 1);
    add(table.lengths, entries);
    std::ranges::sort(arrays);
    int64_t before = 0;
    for (const auto& [begin, end] : arrays) {
      REQUIRE(begin % 16 == 0);
      REQUIRE(begin >= before);
      before = end;
    }
    REQUIRE(before <= byte_count);
    REQUIRE(byte_count < before + 6 * 16);  // And nothing is wasted.
  }
}

TEST_CASE("a document mask hides what lies before the document") {
  const AttentionCase a{.B = 2, .T = 21, .document_mean = 5};
  const int64_t stride = 24;
  const std::vector<int32_t> starts = a.document_start();
  Values expected;
  for (int64_t n = 0; n < a.B * a.T; ++n)
    for (int64_t j = 0; j < stride; ++j)
      expected.push_back(j < starts[size_t(n)] ? double(cuda::kMasked) : 0.0);

  Side side(make_device_under_test());
  const Tensor mask = side.compute_out({a.B * a.T, stride});
  cuda::make_document_mask(mask.data, side.int32(starts, {a.B * a.T}).as<int32_t>(), a.B, a.T,
                           stride, cuda::handle_of(side.stream()));
  REQUIRE(side.download(mask) == expected);
}

TEST_CASE("columns of two matrices are placed side by side in a third") {
  const int64_t rows = 5, columns = 1040,
                stride = 2 * columns + 16;  // More than a block's threads.
  const Values left = bf16_values(rows * columns, 1), right = bf16_values(rows * columns, 2);
  Values expected = bf16_values(rows * stride, 3);
  Side side(make_device_under_test());
  const Tensor target = side.compute(expected, {rows, stride});
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      expected[size_t(r * stride + 8 + c)] = left[size_t(r * columns + c)];
      expected[size_t(r * stride + 8 + columns + c)] = right[size_t(r * columns + c)];
    }
  }
  cuda::place_columns(target.slice(8, {1}).data, stride, side.compute(left, {rows, columns}).data,
                      side.compute(right, {rows, columns}).data, rows, columns,
                      cuda::handle_of(side.stream()));
  REQUIRE(side.download(target) == expected);
}
