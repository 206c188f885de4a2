// A folder of transformers as native tensors, which are put together out of its files piece by
// piece.
#include <algorithm>
#include <fmt/format.h>
#include <set>

#include "checkpoint/hugging_face.h"
#include "checkpoint/hugging_face/config_json.h"
#include "checkpoint/hugging_face/shards.h"
#include "checkpoint/hugging_face/tensor_names.h"
#include "checkpoint/hugging_face/tokenizer_files.h"

namespace checkpoint {
namespace {

constexpr const char* kConfigName = "config.json";

// A run of elements of a native tensor, as a file has it.
struct Part {
  NumberFormat numbers = NumberFormat::kFloat32;
  std::span<const std::byte> bytes;
  int64_t element_count = 0;
};

// Elements [first, first + out.size()) of the parts, one behind the other.
void read_parts(const std::vector<Part>& parts, int64_t first, std::span<float> out) {
  for (const Part& part : parts) {
    if (out.empty()) return;
    if (first >= part.element_count) {
      first -= part.element_count;
      continue;
    }
    const int64_t count = std::min(int64_t(out.size()), part.element_count - first);
    const int64_t width = bytes_per_number(part.numbers);
    decode_numbers(part.numbers, part.bytes.subspan(size_t(first * width), size_t(count * width)),
                   out.first(size_t(count)));
    out = out.subspan(size_t(count));
    first = 0;
  }
  CHECK(out.empty());
}

class Folder : public HuggingFaceModel {
 public:
  Folder(base::Storage& storage, const std::string& folder) : folder_(folder) {
    const std::string path = folder + "/" + kConfigName;
    if (!storage.exists(path)) {
      throw base::bad_input(fmt::format("{}: there is no {}", folder, kConfigName),
                            "name the folder of a model of Hugging Face's transformers");
    }
    const HuggingFaceConfig found = read_config_json(storage.read_text(path), path);
    config_ = found.model;
    is_tied_ = found.is_tied;
    shards_ = map_shards(storage, folder);
    check_tensors();
    FoundTokenizer tokenizer = read_tokenizer_files(
        storage, folder,
        {.begin_id = found.begin_id, .end_id = found.end_id, .has_begin_id = found.has_begin_id});
    tokenizer_ = std::move(tokenizer.record);
    tokenizer_problem_ = std::move(tokenizer.problem);
  }

  const model::ModelConfig& config() const override { return config_; }
  bool is_tied() const override { return is_tied_; }
  const std::vector<std::string>& number_formats() const override { return number_formats_; }
  const data::TokenizerRecord& tokenizer() const override { return tokenizer_; }
  const std::string& tokenizer_problem() const override { return tokenizer_problem_; }

  std::vector<TensorSource> tensors() const override {
    std::map<std::string, std::vector<Part>> parts;
    for (const HuggingFaceTensor& tensor : expected()) {
      const SafetensorsView& view = shards_.tensors.at(tensor.name);
      parts[tensor.native].push_back({.numbers = *number_format_of(view.dtype),
                                      .bytes = view.bytes,
                                      .element_count = tensor.shape.element_count()});
    }
    if (is_tied_) parts["head.head"] = parts.at("embedding.embedding");
    std::vector<TensorSource> sources;
    for (const shard::Unit& unit : model::make_layout(config_).units) {
      for (const shard::TensorSpec& spec : unit.tensors) {
        sources.push_back(
            {.name = spec.name,
             .shape = spec.shape,
             .read = [all = parts.at(spec.name)](int64_t first, std::span<float> out) {
               read_parts(all, first, out);
             }});
      }
    }
    return sources;
  }

 private:
  base::Error refuse(const std::string& what, const std::string& hint = {}) const {
    return base::bad_input(fmt::format("{}: {}", folder_, what), hint);
  }

  // Without the head, where it is the embedding: some files have it all the same.
  std::vector<HuggingFaceTensor> expected() const {
    std::vector<HuggingFaceTensor> all = hugging_face_tensors(config_);
    if (is_tied_) all.pop_back();
    return all;
  }

  void check_tensors() {
    std::set<std::string> known, formats;
    for (const HuggingFaceTensor& tensor : expected()) {
      check_tensor(tensor);
      known.insert(tensor.name);
      formats.insert(shards_.tensors.at(tensor.name).dtype);
    }
    number_formats_.assign(formats.begin(), formats.end());
    for (const auto& [name, view] : shards_.tensors)
      if (!known.contains(name)) check_unknown(name);
  }

  void check_tensor(const HuggingFaceTensor& tensor) const {
    const auto found = shards_.tensors.find(tensor.name);
    if (found == shards_.tensors.end())
      throw refuse(fmt::format("there is no tensor {}", tensor.name), "is the download complete?");
    const SafetensorsView& view = found->second;
    std::vector<int64_t> shape;
    for (int axis = 0; axis < tensor.shape.rank(); ++axis) shape.push_back(tensor.shape[axis]);
    if (view.shape != shape) {
      throw refuse(fmt::format("{} has the shape [{}], by {} it has [{}]", tensor.name,
                               fmt::join(view.shape, ", "), kConfigName, fmt::join(shape, ", ")),
                   "do config.json and the weights belong together?");
    }
    if (!number_format_of(view.dtype)) {
      throw refuse(fmt::format("{} has the dtype {}", tensor.name, view.dtype),
                   "F32, BF16 and F16 are read; quantised weights are not");
    }
  }

  void check_unknown(const std::string& name) const {
    if (is_tied_ && name == kHeadName) return;
    // Files of old have the rotary embedding's frequencies, which follow from config.json.
    if (name.ends_with(".rotary_emb.inv_freq")) return;
    if (name.ends_with(".bias"))
      throw refuse(fmt::format("{}: there are no biases in a model of Llama's shape", name));
    throw refuse(fmt::format("{} is no tensor of a model of Llama's shape", name));
  }

  const std::string folder_;
  model::ModelConfig config_;
  bool is_tied_ = false;
  MappedShards shards_;
  std::vector<std::string> number_formats_;
  data::TokenizerRecord tokenizer_;
  std::string tokenizer_problem_;
};

}  // namespace

std::unique_ptr<HuggingFaceModel> HuggingFaceModel::open(base::Storage& storage,
                                                         const std::string& folder) {
  return std::make_unique<Folder>(storage, folder);
}

}  // namespace checkpoint
