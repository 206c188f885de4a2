// gzip and zstd, unpacked piece by piece. Both may have several parts one after another, as tools
// that work in parallel write them.
#include <algorithm>
#include <zlib.h>
#include <zstd.h>

#include "base/math.h"
#include "data/byte_source.h"

namespace data {
namespace {

constexpr size_t kPieceBytes = size_t(256 * base::kKiB);

// One format's state. Takes packed bytes from the front of `in` and fills `out`; returns how many
// bytes it has written. `problem` says what is wrong.
class Unpacker {
 public:
  virtual ~Unpacker() = default;
  virtual size_t unpack(std::string_view& in, char* out, size_t size, std::string& problem) = 0;
  // Between two parts, where the file may end.
  virtual bool may_end() const = 0;
};

class GzipUnpacker : public Unpacker {
 public:
  GzipUnpacker() {
    constexpr int kGzipOnly = 16;
    if (inflateInit2(&stream_, MAX_WBITS + kGzipOnly) != Z_OK) throw std::bad_alloc();
  }
  ~GzipUnpacker() override { inflateEnd(&stream_); }
  GzipUnpacker(const GzipUnpacker&) = delete;
  GzipUnpacker& operator=(const GzipUnpacker&) = delete;

  size_t unpack(std::string_view& in, char* out, size_t size, std::string& problem) override {
    if (is_between_) {
      // Tapes and some disks fill the last block with zeros.
      in.remove_prefix(std::min(in.find_first_not_of('\0'), in.size()));
      if (in.empty()) return 0;
      inflateReset(&stream_);
      is_between_ = false;
    }
    constexpr size_t kAtOnce = size_t{1} << 30;  // zlib counts in 32 bits.
    const size_t given = std::min(in.size(), kAtOnce);
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
    stream_.avail_in = uInt(given);
    stream_.next_out = reinterpret_cast<Bytef*>(out);
    stream_.avail_out = uInt(size);
    const int result = inflate(&stream_, Z_NO_FLUSH);
    in.remove_prefix(given - stream_.avail_in);
    is_between_ = result == Z_STREAM_END;
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
      problem = fmt::format("damaged gzip data: {}", stream_.msg ? stream_.msg : "no reason given");
    return size - stream_.avail_out;
  }
  bool may_end() const override { return is_between_; }

 private:
  z_stream stream_{};
  bool is_between_ = false;
};

class ZstdUnpacker : public Unpacker {
 public:
  ZstdUnpacker() : stream_(ZSTD_createDStream()) {
    if (!stream_) throw std::bad_alloc();
  }
  ~ZstdUnpacker() override { ZSTD_freeDStream(stream_); }
  ZstdUnpacker(const ZstdUnpacker&) = delete;
  ZstdUnpacker& operator=(const ZstdUnpacker&) = delete;

  size_t unpack(std::string_view& in, char* out, size_t size, std::string& problem) override {
    if (is_between_ && in.empty()) return 0;
    ZSTD_inBuffer input{in.data(), in.size(), 0};
    ZSTD_outBuffer output{out, size, 0};
    const size_t result = ZSTD_decompressStream(stream_, &output, &input);
    in.remove_prefix(input.pos);
    is_between_ = result == 0;
    if (ZSTD_isError(result))
      problem = fmt::format("damaged zstd data: {}", ZSTD_getErrorName(result));
    return output.pos;
  }
  bool may_end() const override { return is_between_; }

 private:
  ZSTD_DStream* stream_;
  bool is_between_ = false;
};

class UnpackedSource : public ByteSource {
 public:
  UnpackedSource(std::unique_ptr<base::MappedFile> file, std::unique_ptr<Unpacker> unpacker)
      : file_(std::move(file)),
        unpacker_(std::move(unpacker)),
        packed_(reinterpret_cast<const char*>(file_->bytes().data()), file_->bytes().size()) {}

  bool stays() const override { return false; }
  int64_t position() const override { return int64_t(file_->bytes().size() - packed_.size()); }

  // The window is doubled, so that looking again at all of it takes twice its length in all.
  void extend() override {
    buffer_.erase(0, buffer_.size() - window_.size());
    const size_t kept = buffer_.size();
    buffer_.resize(kept + std::max(kept, kPieceBytes));
    size_t used = kept;
    while (used < buffer_.size() && !is_whole_) {
      const size_t packed_before = packed_.size();
      const size_t count =
          unpacker_->unpack(packed_, buffer_.data() + used, buffer_.size() - used, problem_);
      used += count;
      const bool is_stuck = count == 0 && packed_.size() == packed_before;
      if (problem_.empty() && packed_.empty() && count == 0 && !unpacker_->may_end())
        problem_ = "the packed data end early";
      is_whole_ = !problem_.empty() || (packed_.empty() && unpacker_->may_end() && count == 0);
      if (is_stuck && !is_whole_ && used < buffer_.size()) {
        problem_ = "the packed data do not go on";
        is_whole_ = true;
      }
    }
    buffer_.resize(used);
    window_ = buffer_;
  }

 private:
  const std::unique_ptr<base::MappedFile> file_;
  const std::unique_ptr<Unpacker> unpacker_;
  std::string_view packed_;  // What is left of it.
  std::string buffer_;       // Ends with the window.
};

}  // namespace

std::unique_ptr<ByteSource> open_source(base::Storage& storage, const std::string& path) {
  auto file = storage.map(path);
  const std::string_view content(reinterpret_cast<const char*>(file->bytes().data()),
                                 file->bytes().size());
  if (content.starts_with("\x1f\x8b\x08"))
    return std::make_unique<UnpackedSource>(std::move(file), std::make_unique<GzipUnpacker>());
  if (content.starts_with("\x28\xb5\x2f\xfd"))
    return std::make_unique<UnpackedSource>(std::move(file), std::make_unique<ZstdUnpacker>());
  return std::make_unique<MemorySource>(std::move(file));
}

}  // namespace data
