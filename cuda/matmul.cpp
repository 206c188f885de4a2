// One cublasLtMatmul per product, with everything about a shape prepared once.
//
// cuBLASLt thinks in column-major matrices: a row-major (r, c) matrix is a column-major (c, r) one.
// So out = a' b' is computed as out^T = b'^T a'^T: the operands change places, and the leading
// dimension of each is the length of its rows in memory.
#include "cuda/matmul.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cmath>
#include <cstring>
#include <cublasLt.h>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <tuple>
#include <unistd.h>
#include <vector>

#include "base/log.h"
#include "base/math.h"
#include "cuda/check.h"
#include "cuda/fastest.h"

namespace cuda {

using backend::DType;
using backend::MatmulArgs;
using backend::Tensor;

namespace {

constexpr size_t kWorkspaceBytes = size_t(32 * base::kMiB);  // What Hopper's kernels can use.
constexpr int kCandidates = 24;
constexpr float kTuningMilliseconds = 1000;  // Of one product: then the best so far is taken.

void check_lt(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw base::resource_lost(fmt::format("cuBLASLt, {}: status {}", what, int(status)),
                            "Start the node again; if it comes back, test the GPU.");
}

struct Product {
  int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  DType out = DType::kBfloat16;
  uint32_t alignment = 256;     // Of all three matrices, in bytes.
  int32_t multiprocessors = 0;  // 0: all.

  auto operator<=>(const Product&) const = default;
  std::string text() const {
    return fmt::format("{}x{}x{}{}{}{}{}{}{}", m, n, k, transpose_a ? "-ta" : "",
                       transpose_b ? "-tb" : "", accumulate ? "-add" : "",
                       out == DType::kFloat32 ? "-fp32" : "",
                       alignment < 256 ? fmt::format("-align{}", alignment) : "",
                       multiprocessors > 0 ? fmt::format("-sm{}", multiprocessors) : "");
  }
};

// The largest power of two up to 256 that divides all addresses.
uint32_t common_alignment(const MatmulArgs& args) {
  const auto bits = reinterpret_cast<uintptr_t>(args.out.data) |
                    reinterpret_cast<uintptr_t>(args.a.data) |
                    reinterpret_cast<uintptr_t>(args.b.data) | uintptr_t{256};
  return uint32_t(bits & -bits);
}

Product product_of(const MatmulArgs& args, int32_t multiprocessors) {
  CHECK(args.out.shape.rank() == 2 && args.a.shape.rank() == 2 && args.b.shape.rank() == 2);
  const auto& a = args.a.shape;
  const auto& b = args.b.shape;
  const Product p{.m = args.out.shape[0],
                  .n = args.out.shape[1],
                  .k = a[args.transpose_a ? 0 : 1],
                  .transpose_a = args.transpose_a,
                  .transpose_b = args.transpose_b,
                  .accumulate = args.accumulate,
                  .out = args.out.dtype,
                  .alignment = common_alignment(args),
                  .multiprocessors = multiprocessors};
  CHECK(a[args.transpose_a ? 1 : 0] == p.m && b[args.transpose_b ? 0 : 1] == p.n &&
            b[args.transpose_b ? 1 : 0] == p.k,
        "a product {} of ({}, {}) and ({}, {})", p.text(), a[0], a[1], b[0], b[1]);
  CHECK(args.a.dtype == DType::kBfloat16 && args.b.dtype == DType::kBfloat16);
  CHECK(p.out == DType::kBfloat16 || p.out == DType::kFloat32);
  return p;
}

template <auto kDestroy>
struct Destroy {
  template <class T>
  void operator()(T* handle) const {
    kDestroy(handle);
  }
};
using Description = std::unique_ptr<cublasLtMatmulDescOpaque_t, Destroy<cublasLtMatmulDescDestroy>>;
using Layout = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Destroy<cublasLtMatrixLayoutDestroy>>;
using Preference =
    std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, Destroy<cublasLtMatmulPreferenceDestroy>>;

// A row-major matrix of `rows` rows of `columns` elements.
Layout make_layout(DType dtype, int64_t rows, int64_t columns) {
  cublasLtMatrixLayout_t layout = nullptr;
  const auto type = dtype == DType::kFloat32 ? CUDA_R_32F : CUDA_R_16BF;
  check_lt(cublasLtMatrixLayoutCreate(&layout, type, uint64_t(columns), uint64_t(rows), columns),
           "describing a matrix");
  return Layout(layout);
}

Description make_description(const Product& product) {
  cublasLtMatmulDesc_t description = nullptr;
  check_lt(cublasLtMatmulDescCreate(&description, CUBLAS_COMPUTE_32F, CUDA_R_32F),
           "describing a product");
  Description owner(description);
  // The operands have changed places: b is the library's first one.
  const cublasOperation_t first = product.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t second = product.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  check_lt(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSA, &first,
                                          sizeof(first)),
           "describing a product");
  check_lt(cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                                          sizeof(second)),
           "describing a product");
  if (product.multiprocessors > 0) {
    check_lt(
        cublasLtMatmulDescSetAttribute(description, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET,
                                       &product.multiprocessors, sizeof(product.multiprocessors)),
        "describing a product");
  }
  return owner;
}

struct Operands {
  void* out;
  const void* a;
  const void* b;
};

struct Plan {
  explicit Plan(const Product& p)
      : product(p),
        description(make_description(p)),
        a(make_layout(DType::kBfloat16, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k)),
        b(make_layout(DType::kBfloat16, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n)),
        out(make_layout(p.out, p.m, p.n)) {}

  cublasStatus_t run(cublasLtHandle_t library, const Operands& operands,
                     const cublasLtMatmulAlgo_t& chosen, void* workspace,
                     cudaStream_t stream) const {
    const float alpha = 1, beta = product.accumulate ? 1 : 0;
    return cublasLtMatmul(library, description.get(), &alpha, operands.b, b.get(), operands.a,
                          a.get(), &beta, operands.out, out.get(), operands.out, out.get(), &chosen,
                          workspace, kWorkspaceBytes, stream);
  }

  Product product;
  Description description;
  Layout a, b, out;
  cublasLtMatmulAlgo_t algorithm{};
};

// A file of lines "product bytes-in-hex", under a line with the library's version: an algorithm's
// bytes mean something to the same version only. Shared by the ranks of a process that have the
// same kind of GPU, so that they make the same choices; whoever uses it holds `mutex`.
class ChoiceFile {
 public:
  explicit ChoiceFile(std::string path) : path_(std::move(path)) { load(); }

  static std::shared_ptr<ChoiceFile> shared(const std::string& path) {
    if (path.empty()) return std::make_shared<ChoiceFile>(path);
    static std::mutex mutex;
    static std::map<std::string, std::weak_ptr<ChoiceFile>> files;
    const std::lock_guard lock(mutex);
    auto file = files[path].lock();
    if (!file) files[path] = file = std::make_shared<ChoiceFile>(path);
    return file;
  }

  std::mutex mutex;

  std::optional<cublasLtMatmulAlgo_t> find(const Product& product) const {
    const auto found = choices_.find(product.text());
    if (found == choices_.end()) return std::nullopt;
    return found->second;
  }
  void keep(const Product& product, const cublasLtMatmulAlgo_t& algorithm) {
    choices_[product.text()] = algorithm;
    if (!path_.empty()) save();
  }

 private:
  static std::string header() { return fmt::format("cublasLt {}", cublasLtGetVersion()); }

  void load() {
    std::ifstream file(path_);
    std::string line;
    if (!std::getline(file, line) || line != header()) return;
    for (std::string product, hex; file >> product >> hex;) {
      cublasLtMatmulAlgo_t algorithm{};
      if (hex.size() != 2 * sizeof(algorithm)) continue;
      auto* const bytes = reinterpret_cast<unsigned char*>(&algorithm);
      for (size_t i = 0; i < sizeof(algorithm); ++i) {
        const auto digit = [](char c) { return c <= '9' ? c - '0' : (c | 32) - 'a' + 10; };
        bytes[i] = static_cast<unsigned char>(digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]));
      }
      choices_[product] = algorithm;
    }
  }

  // A cache that cannot be written costs a second at the next start, and nothing else.
  void save() const {
    std::error_code ignored;
    std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), ignored);
    // Other processes may write the same file: each its own, and the last one to rename it wins.
    const std::string temporary = fmt::format("{}.new-{}", path_, getpid());
    std::ofstream file(temporary);
    file << header() << "\n";
    for (const auto& [product, algorithm] : choices_) {
      file << product << " ";
      const auto* const bytes = reinterpret_cast<const unsigned char*>(&algorithm);
      for (size_t i = 0; i < sizeof(algorithm); ++i) file << fmt::format("{:02x}", bytes[i]);
      file << "\n";
    }
    file.close();
    if (file) std::filesystem::rename(temporary, path_, ignored);
  }

  const std::string path_;
  std::map<std::string, cublasLtMatmulAlgo_t> choices_;
};

class DeviceMemory {
 public:
  explicit DeviceMemory(size_t byte_count) {
    if (cudaMalloc(&data_, byte_count) != cudaSuccess) data_ = nullptr;
    cudaGetLastError();
  }
  ~DeviceMemory() { cudaFree(data_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  void* data() const { return data_; }  // nullptr: there was no memory.

 private:
  void* data_ = nullptr;
};

// Whether it seems to have zeros only, from some kilobytes at its begin, middle and end. Waits for
// the stream.
bool looks_like_zeros(const Tensor& tensor, cudaStream_t stream) {
  const int64_t byte_count = tensor.byte_count();
  std::vector<char> sample(size_t(std::min<int64_t>(byte_count, 4 * base::kKiB)));
  const auto rest = byte_count - int64_t(sample.size());
  for (const int64_t at : {int64_t{0}, rest / 2, rest}) {
    check(cudaMemcpyAsync(sample.data(), static_cast<const char*>(tensor.data) + at, sample.size(),
                          cudaMemcpyDeviceToHost, stream),
          "looking at the operands of a product");
    check(cudaStreamSynchronize(stream), "looking at the operands of a product");
    if (!std::ranges::all_of(sample, [](char c) { return c == 0; })) return false;
  }
  return true;
}

// Normal numbers in bf16: a few of them again and again. Waits for the stream.
void fill_with_random(void* target, size_t byte_count, cudaStream_t stream) {
  std::vector<uint16_t> numbers(std::min(byte_count, size_t(base::kMiB)) / sizeof(uint16_t));
  std::mt19937 bits(1);
  std::normal_distribution<float> normal;
  for (uint16_t& number : numbers) number = uint16_t(std::bit_cast<uint32_t>(normal(bits)) >> 16);
  const size_t period = numbers.size() * sizeof(uint16_t);
  for (size_t at = 0; at < byte_count; at += period) {
    check(cudaMemcpyAsync(static_cast<char*>(target) + at, numbers.data(),
                          std::min(period, byte_count - at), cudaMemcpyHostToDevice, stream),
          "filling an operand to time a product");
  }
  check(cudaStreamSynchronize(stream), "filling an operand to time a product");
}

// What a product is timed with. The time depends on the data (zeros draw less power, so the clock
// is higher), so with the operands of the first call, but
//   - random numbers in the place of an operand of zeros: one that nobody has filled yet, or whose
//     true content comes with later steps;
//   - other memory in the place of an output that is accumulated into. Any other output is about to
//     be overwritten, so what the timing leaves in it does not matter.
class TimingOperands {
 public:
  TimingOperands(const MatmulArgs& args, cudaStream_t stream)
      : operands_{args.out.data, args.a.data, args.b.data} {
    if (args.accumulate) {
      operands_.out = take(args.out.byte_count());
      if (!is_complete_) return;
      check(cudaMemsetAsync(operands_.out, 0, size_t(args.out.byte_count()), stream), "clearing");
    }
    if (looks_like_zeros(args.a, stream)) operands_.a = random_like(args.a, stream);
    if (looks_like_zeros(args.b, stream)) operands_.b = random_like(args.b, stream);
  }

  bool is_complete() const { return is_complete_; }  // False: there was no memory.
  const Operands& operands() const { return operands_; }

 private:
  void* take(int64_t byte_count) {
    void* const data =
        memory_.emplace_back(std::make_unique<DeviceMemory>(size_t(byte_count)))->data();
    is_complete_ = is_complete_ && data != nullptr;
    return data;
  }
  const void* random_like(const Tensor& operand, cudaStream_t stream) {
    void* const data = take(operand.byte_count());
    if (data != nullptr) fill_with_random(data, size_t(operand.byte_count()), stream);
    return data;
  }

  std::vector<std::unique_ptr<DeviceMemory>> memory_;
  Operands operands_;
  bool is_complete_ = true;
};

class Timer {
 public:
  Timer() {
    check(cudaEventCreateWithFlags(&begin_, cudaEventDefault), "making an event");
    check(cudaEventCreateWithFlags(&end_, cudaEventDefault), "making an event");
  }
  ~Timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  template <class Body>
  float milliseconds(cudaStream_t stream, const Body& body) {
    check(cudaEventRecord(begin_, stream), "timing");
    body();
    check(cudaEventRecord(end_, stream), "timing");
    check(cudaEventSynchronize(end_), "timing");
    float time = 0;
    check(cudaEventElapsedTime(&time, begin_, end_), "timing");
    return time;
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

class LtMatmul final : public Matmul {
 public:
  explicit LtMatmul(const MatmulOptions& options)
      : options_(options),
        choices_(ChoiceFile::shared(options.cache_file)),
        first_workspace_(make_workspace()) {
    check_lt(cublasLtCreate(&library_), "starting");
  }
  ~LtMatmul() override { cublasLtDestroy(library_); }
  LtMatmul(const LtMatmul&) = delete;
  LtMatmul& operator=(const LtMatmul&) = delete;

  void run(const MatmulArgs& args, cudaStream_t stream) override {
    const Product product = product_of(args, options_.multiprocessors);
    auto found = plans_.find(product);
    if (found == plans_.end()) {
      found = plans_.emplace(product, make_plan(product, args, stream)).first;
    }
    const Plan& plan = *found->second;
    check_lt(plan.run(library_, operands(args), plan.algorithm, workspace(stream), stream),
             "a product");
  }

 private:
  static std::unique_ptr<DeviceMemory> make_workspace() {
    auto memory = std::make_unique<DeviceMemory>(kWorkspaceBytes);
    if (memory->data() == nullptr)
      check(cudaErrorMemoryAllocation, "allocating the workspace of products");
    return memory;
  }
  // Each stream has its own, from its first product on (the warm-up step): products of two streams
  // may run at the same time.
  void* workspace(cudaStream_t stream) {
    std::unique_ptr<DeviceMemory>& own = workspaces_[stream];
    if (!own) own = first_workspace_ ? std::move(first_workspace_) : make_workspace();
    return own->data();
  }
  // So that no other stream's products disturb the timing of one.
  void synchronize_streams() const {
    for (const auto& [stream, memory] : workspaces_)
      check(cudaStreamSynchronize(stream), "waiting for other products");
  }
  static Operands operands(const MatmulArgs& args) {
    return {args.out.data, args.a.data, args.b.data};
  }

  std::unique_ptr<Plan> make_plan(const Product& product, const MatmulArgs& args,
                                  cudaStream_t stream);
  std::vector<cublasLtMatmulAlgo_t> candidates(const Plan& plan) const;
  float time(const Plan& plan, const Operands& operands, const cublasLtMatmulAlgo_t& algorithm,
             cudaStream_t stream);

  const MatmulOptions options_;
  const std::shared_ptr<ChoiceFile> choices_;
  std::unique_ptr<DeviceMemory> first_workspace_;  // Until a stream has it.
  std::map<cudaStream_t, std::unique_ptr<DeviceMemory>> workspaces_;
  cublasLtHandle_t library_ = nullptr;
  Timer timer_;
  std::map<Product, std::unique_ptr<Plan>> plans_;
};

std::vector<cublasLtMatmulAlgo_t> LtMatmul::candidates(const Plan& plan) const {
  cublasLtMatmulPreference_t preference = nullptr;
  check_lt(cublasLtMatmulPreferenceCreate(&preference), "choosing");
  const Preference owner(preference);
  check_lt(
      cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                           &kWorkspaceBytes, sizeof(kWorkspaceBytes)),
      "choosing");
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    check_lt(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &plan.product.alignment,
                                                  sizeof(plan.product.alignment)),
             "choosing");
  }
  // Partial sums of a split inner dimension are added in fp32, in the workspace: never rounded to
  // the output's bf16, as two of the library's schemes would.
  const uint32_t schemes = options_.deterministic ? CUBLASLT_REDUCTION_SCHEME_NONE
                                                  : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  check_lt(cublasLtMatmulPreferenceSetAttribute(
               preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof(schemes)),
           "choosing");
  std::array<cublasLtMatmulHeuristicResult_t, kCandidates> results;
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      library_, plan.description.get(), plan.b.get(), plan.a.get(), plan.out.get(), plan.out.get(),
      preference, kCandidates, results.data(), &count);
  if (status != CUBLAS_STATUS_SUCCESS || count == 0) {
    throw base::bad_input(
        fmt::format("cuBLASLt has no way to compute the product {} on this GPU (status {})",
                    plan.product.text(), int(status)),
        "Use model widths that are multiples of 8.");
  }
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; i < count; ++i) {
    if (results[size_t(i)].state == CUBLAS_STATUS_SUCCESS)
      algorithms.push_back(results[size_t(i)].algo);
  }
  CHECK(!algorithms.empty(), "{}", plan.product.text());
  return algorithms;
}

// Milliseconds of one run; infinity for a candidate that fails.
float LtMatmul::time(const Plan& plan, const Operands& operands,
                     const cublasLtMatmulAlgo_t& algorithm, cudaStream_t stream) {
  bool is_good = false;
  const float milliseconds = timer_.milliseconds(stream, [&] {
    is_good =
        plan.run(library_, operands, algorithm, workspace(stream), stream) == CUBLAS_STATUS_SUCCESS;
  });
  return is_good ? milliseconds : std::numeric_limits<float>::infinity();
}

std::unique_ptr<Plan> LtMatmul::make_plan(const Product& product, const MatmulArgs& args,
                                          cudaStream_t stream) {
  auto plan = std::make_unique<Plan>(product);
  const auto algorithms = candidates(*plan);
  plan->algorithm = algorithms.front();
  if (!options_.tune || algorithms.size() == 1) return plan;
  // The first rank to come times for all; the others do not disturb it.
  const std::lock_guard lock(choices_->mutex);
  if (const auto known = choices_->find(product)) {
    cublasLtMatmulHeuristicResult_t result;
    const bool is_valid = cublasLtMatmulAlgoCheck(library_, plan->description.get(), plan->b.get(),
                                                  plan->a.get(), plan->out.get(), plan->out.get(),
                                                  &*known, &result) == CUBLAS_STATUS_SUCCESS &&
                          result.workspaceSize <= kWorkspaceBytes;
    if (is_valid) {
      plan->algorithm = *known;
      return plan;
    }
  }
  synchronize_streams();
  const TimingOperands timing(args, stream);
  if (!timing.is_complete()) {
    base::log_warning("no memory to time the product {}: the library's first choice is taken",
                      product.text());
    return plan;
  }
  const Fastest fastest = find_fastest(
      algorithms.size(),
      [&](size_t i) { return time(*plan, timing.operands(), algorithms[i], stream); },
      kTuningMilliseconds);
  plan->algorithm = algorithms[fastest.index];
  const double flop = 2.0 * double(product.m) * double(product.n) * double(product.k);
  base::log_info("product {}: {:.3f} ms, {:.0f} TFLOP/s; {} of {} candidates, the first {:.3f} ms",
                 product.text(), fastest.milliseconds, flop / double(fastest.milliseconds) * 1e-9,
                 fastest.tried, algorithms.size(), fastest.first_milliseconds);
  if (!std::isfinite(fastest.milliseconds)) return plan;  // The call will say what is wrong.
  choices_->keep(product, plan->algorithm);
  return plan;
}

}  // namespace

std::unique_ptr<Matmul> Matmul::create(const MatmulOptions& options) {
  return std::make_unique<LtMatmul>(options);
}

}  // namespace cuda
