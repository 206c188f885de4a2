#include "checkpoint/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "base/json.h"
#include "base/math.h"
#include "checkpoint/manifest.h"

namespace checkpoint {
namespace {

static_assert(std::endian::native == std::endian::little,
              "tensors are stored as they lie in memory");

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kHeaderBytesMax = 100'000'000;  // Every reader of the format has this limit.
constexpr int64_t kAlignment = 8;  // Of the data, so that a mapped file can be used in place.
constexpr int64_t kBufferElements =
    base::kMiB;  // 4 MiB: writes are large, and the state is never held twice.
constexpr const char* kMetadataKey = "__metadata__";

std::string header_of(const FileSource& source) {
  base::JsonWriter header;
  header.begin_object();
  // Transformers takes only files that say which layout of weights they have; "pt" is (outputs,
  // inputs), as ours.
  header.key(kMetadataKey).begin_object().field("format", "pt").end_object();
  std::set<std::string> names = {kMetadataKey};
  int64_t offset = 0;
  const auto begin = [&](const std::string& name, const char* dtype) {
    CHECK(names.insert(name).second, "a second tensor with the name {}", name);
    header.key(name).begin_object().field("dtype", dtype).key("shape").begin_array();
  };
  const auto end = [&](int64_t bytes) {
    header.end_array().key("data_offsets").begin_array().value(offset);
    offset += bytes;
    header.value(offset).end_array().end_object();
  };
  for (const TensorSource& tensor : source.tensors) {
    begin(tensor.name, safetensors_name(source.numbers));
    for (int axis = 0; axis < tensor.shape.rank(); ++axis) header.value(tensor.shape[axis]);
    end(tensor.shape.element_count() * bytes_per_number(source.numbers));
  }
  for (const BytesSource& bytes : source.bytes) {
    begin(bytes.name, "U8");
    header.value(int64_t(bytes.bytes.size()));
    end(int64_t(bytes.bytes.size()));
  }
  header.end_object();
  std::string text = header.text();
  text.resize(size_t(base::round_up(int64_t(text.size()), kAlignment)), ' ');
  CHECK(int64_t(text.size()) <= kHeaderBytesMax);
  return text;
}

Damaged malformed(const std::string& path, const std::string& found) {
  return Damaged(base::ExitCode::kBadInput,
                 fmt::format("{}: not a safetensors file: {}", path, found),
                 "the file is damaged: use another copy of it");
}

// Turns what JsonValue found into the one error that this file has.
template <class T>
T require(base::Result<T> result, const std::string& path) {
  if (!result) throw malformed(path, "header: " + result.reason());
  return std::move(*result);
}

std::optional<int64_t> bytes_per_element(const std::string& dtype) {
  static const std::map<std::string, int64_t> kBytes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1},
      {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},
      {"I32", 4},  {"F32", 4}, {"U64", 8}, {"I64", 8},     {"F64", 8}};
  const auto found = kBytes.find(dtype);
  return found == kBytes.end() ? std::nullopt : std::optional(found->second);
}

struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  auto operator<=>(const Range&) const = default;
};

// The header's entry of one tensor without its bytes, and where these lie in the data.
std::pair<SafetensorsView, Range> parse_entry(const base::JsonValue& entry, int64_t data_bytes,
                                              const std::string& path) {
  SafetensorsView view;
  view.dtype = require(require(entry.get("dtype"), path).as_string(), path);
  const auto element_bytes = bytes_per_element(view.dtype);
  if (!element_bytes)
    throw malformed(path,
                    fmt::format("header: {}: unknown dtype \"{}\"", entry.path(), view.dtype));

  const base::JsonValue shape = require(entry.get("shape"), path);
  if (!shape.is_array())
    throw malformed(path, fmt::format("header: {}: expected an array", shape.path()));
  int64_t expected_bytes = *element_bytes;
  for (int64_t axis = 0; axis < shape.count(); ++axis) {
    const int64_t extent = require(require(shape.at(axis), path).as_integer(), path);
    if (extent < 0 || __builtin_mul_overflow(expected_bytes, extent, &expected_bytes)) {
      throw malformed(path, fmt::format("header: {}: impossible extent {}", shape.path(), extent));
    }
    view.shape.push_back(extent);
  }

  const base::JsonValue offsets = require(entry.get("data_offsets"), path);
  if (offsets.count() != 2)
    throw malformed(path, fmt::format("header: {}: expected two offsets", offsets.path()));
  const Range range = {require(require(offsets.at(0), path).as_integer(), path),
                       require(require(offsets.at(1), path).as_integer(), path)};
  if (range.begin < 0 || range.end < range.begin || range.end > data_bytes) {
    throw malformed(path, fmt::format("header: {}: [{}, {}) is not in the {} bytes of data",
                                      offsets.path(), range.begin, range.end, data_bytes));
  }
  if (range.end - range.begin != expected_bytes) {
    throw malformed(path,
                    fmt::format("header: {}: shape and dtype need {} bytes, the offsets have {}",
                                entry.path(), expected_bytes, range.end - range.begin));
  }
  return {std::move(view), range};
}

// Overlaps and holes are refused: both could hide bytes that no check sees.
void check_contiguous(std::vector<Range> ranges, int64_t data_bytes, const std::string& path) {
  std::sort(ranges.begin(), ranges.end());
  int64_t end = 0;
  for (const Range& range : ranges) {
    if (range.begin != end) {
      throw malformed(path, fmt::format("data: expected a tensor at byte {}, the next one is at {}",
                                        end, range.begin));
    }
    end = range.end;
  }
  if (end != data_bytes)
    throw malformed(path, fmt::format("data: {} bytes, the tensors end at {}", data_bytes, end));
}

// In `room`, where the bytes are not those of `numbers` itself.
std::span<const std::byte> encode(NumberFormat format, const std::string& tensor,
                                  std::span<const float> numbers, std::vector<std::byte>& room) {
  if (format == NumberFormat::kFloat32) return std::as_bytes(numbers);
  room.resize(numbers.size() * size_t(bytes_per_number(format)));
  if (const auto too_large = encode_numbers(format, numbers, room)) {
    throw base::bad_input(fmt::format("{} has the number {}, which is too large for {}", tensor,
                                      numbers[*too_large], torch_name(format)),
                          "choose bf16 or fp32");
  }
  return room;
}

}  // namespace

FileRecord write_safetensors(base::OutputFile& file, const FileSource& source) {
  FileRecord record;
  base::Sha256 hash;
  const auto write = [&](std::span<const std::byte> bytes) {
    hash.update(bytes);
    file.write(bytes);
    record.bytes += int64_t(bytes.size());
  };

  const std::string header = header_of(source);
  const uint64_t header_bytes = header.size();
  write(std::as_bytes(std::span(&header_bytes, 1)));
  write(std::as_bytes(std::span(header)));

  std::vector<float> buffer;
  std::vector<std::byte> encoded;
  for (const TensorSource& tensor : source.tensors) {
    const int64_t element_count = tensor.shape.element_count();
    for (int64_t first = 0; first < element_count; first += kBufferElements) {
      buffer.resize(size_t(std::min(kBufferElements, element_count - first)));
      tensor.read(first, buffer);
      write(encode(source.numbers, tensor.name, buffer, encoded));
    }
  }
  for (const BytesSource& bytes : source.bytes) write(bytes.bytes);
  record.sha256 = hash.finish();
  return record;
}

std::map<std::string, SafetensorsView> parse_safetensors(std::span<const std::byte> file,
                                                         const std::string& path) {
  if (file.size() < size_t(kLengthBytes))
    throw malformed(path, fmt::format("{} bytes", file.size()));
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), size_t(kLengthBytes));
  const size_t rest = file.size() - size_t(kLengthBytes);
  if (header_bytes > uint64_t(kHeaderBytesMax) || header_bytes > rest) {
    throw malformed(path,
                    fmt::format("a header of {} bytes in a file of {}", header_bytes, file.size()));
  }
  const auto header_text = file.subspan(size_t(kLengthBytes), size_t(header_bytes));
  const auto data = file.subspan(size_t(kLengthBytes) + size_t(header_bytes));
  const base::JsonValue header =
      require(base::JsonValue::parse(
                  {reinterpret_cast<const char*>(header_text.data()), header_text.size()}),
              path);
  if (!header.is_object()) throw malformed(path, "header: expected an object");

  std::map<std::string, SafetensorsView> tensors;
  std::vector<Range> ranges;
  for (const std::string& name : header.keys()) {
    if (name == kMetadataKey) continue;
    auto [view, range] = parse_entry(require(header.get(name), path), int64_t(data.size()), path);
    view.bytes = data.subspan(size_t(range.begin), size_t(range.end - range.begin));
    tensors.emplace(name, std::move(view));
    ranges.push_back(range);
  }
  check_contiguous(std::move(ranges), int64_t(data.size()), path);
  return tensors;
}

}  // namespace checkpoint
