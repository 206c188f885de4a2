// How numbers of the model lie in a file. Inside Atoll they are fp32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace checkpoint {

enum class NumberFormat { kFloat32, kBfloat16, kFloat16 };

int64_t bytes_per_number(NumberFormat format);      // Of one number.
const char* safetensors_name(NumberFormat format);  // "F32", "BF16", "F16"
const char* torch_name(NumberFormat format);        // "float32", "bfloat16", "float16"
// "fp32", "bf16", "fp16", as in options. Throws bad_input for others.
NumberFormat parse_number_format(const std::string& name);
// By the name that safetensors has for it; nothing for other dtypes.
std::optional<NumberFormat> number_format_of(const std::string& safetensors_dtype);

// Rounds to the nearest, ties to even; a NaN stays one. Returns the index of the first finite
// number that is too large for the format, if there is one. REQUIRES: out has
// bytes_per_number(format) for each.
std::optional<size_t> encode_numbers(NumberFormat format, std::span<const float> numbers,
                                     std::span<std::byte> out);
// Exact: fp32 knows all numbers of the others. REQUIRES: as above.
void decode_numbers(NumberFormat format, std::span<const std::byte> bytes, std::span<float> out);

}  // namespace checkpoint
