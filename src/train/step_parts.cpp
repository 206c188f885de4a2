#include "train/step_parts.h"

#include <limits>

#include "base/math.h"

namespace train {

double mean_keys(const data::Batch& batch, int64_t sequence_length) {
  double pairs = 0;
  const auto count = int64_t(batch.document_starts.size());
  for (int64_t begin = 0; begin < count;) {
    const int64_t row_end = (begin / sequence_length + 1) * sequence_length;
    int64_t end = begin + 1;
    while (end < row_end &&
           batch.document_starts[size_t(end)] == batch.document_starts[size_t(begin)])
      ++end;
    pairs += 0.5 * double(end - begin) * double(end - begin);
    begin = end;
  }
  return count > 0 ? pairs / double(count) : 0;
}

BenchPart bench_part(const TimedPart& part, double flops, double bytes_per_second) {
  const bool is_flop = part.flop > 0;
  const double ceiling = is_flop ? flops : bytes_per_second;
  const double ideal = (is_flop ? part.flop : part.bytes) / ceiling;
  return {.name = part.name,
          .part_of = part.part_of,
          .calls = part.calls,
          .seconds = part.seconds,
          .bytes = part.bytes,
          .tflops_per_second = part.flop / part.seconds * 1e-12,
          .gigabytes_per_second = part.bytes / part.seconds * 1e-9,
          .lost_seconds =
              ceiling > 0 ? part.seconds - ideal : std::numeric_limits<double>::quiet_NaN()};
}

double seconds_of(const std::vector<BenchPart>& parts) {
  double seconds = 0;
  for (const BenchPart& part : parts) seconds += part.seconds;
  return seconds;
}

double growth(const BenchPart& part, const model::ModelConfig& config, int64_t micro_batches,
              int64_t blocks) {
  if (part.part_of == PartOf::kOnce) return 1;
  if (part.part_of == PartOf::kParameters) {
    model::ModelConfig other = config;
    other.layers = blocks;
    return double(model::parameter_count(other)) / double(model::parameter_count(config));
  }
  const int64_t in_head = part.part_of == PartOf::kBlocksAndHead ? micro_batches : 0;
  const int64_t in_blocks = part.calls - in_head;
  const int64_t per_block = base::div_ceil(in_blocks, micro_batches * config.layers);
  const int64_t left_out = per_block * micro_batches * config.layers - in_blocks;
  return double(per_block * micro_batches * blocks - left_out + in_head) / double(part.calls);
}

double extrapolated_step_seconds(const std::vector<BenchPart>& parts,
                                 const model::ModelConfig& config, int64_t micro_batches,
                                 double step_seconds, int64_t blocks) {
  double seconds = 0;
  for (const BenchPart& part : parts)
    seconds += part.seconds * growth(part, config, micro_batches, blocks);
  return step_seconds * seconds / seconds_of(parts);
}

}  // namespace train
