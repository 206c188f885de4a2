// A device that passes everything on to another one: for tests that change a part of it.
#pragma once

#include <memory>

#include "backend/device.h"

namespace test {

class WrappedDevice : public backend::Device {
 public:
  explicit WrappedDevice(std::unique_ptr<backend::Device> device) : device_(std::move(device)) {}

  void enter_thread() override { device_->enter_thread(); }
  std::string name() const override { return device_->name(); }
  backend::DType compute_dtype() const override { return device_->compute_dtype(); }
  std::unique_ptr<backend::Buffer> allocate(int64_t byte_count, const std::string& label) override {
    return device_->allocate(byte_count, label);
  }
  std::unique_ptr<backend::Buffer> allocate_host(int64_t byte_count,
                                                 const std::string& label) override {
    return device_->allocate_host(byte_count, label);
  }
  void set_steady(bool steady) override { device_->set_steady(steady); }
  backend::Stream& compute_stream() override { return device_->compute_stream(); }
  backend::Stream& copy_stream() override { return device_->copy_stream(); }
  backend::Stream& communication_stream() override { return device_->communication_stream(); }
  backend::Stream& side_stream() override { return device_->side_stream(); }
  void copy(void* target, const void* source, int64_t byte_count,
            backend::Stream& stream) override {
    device_->copy(target, source, byte_count, stream);
  }
  std::unique_ptr<backend::Event> record(backend::Stream& stream) override {
    return device_->record(stream);
  }
  void wait(backend::Stream& stream, const backend::Event& event) override {
    device_->wait(stream, event);
  }
  void synchronize(backend::Stream& stream) override { device_->synchronize(stream); }
  void synchronize(const backend::Event& event) override { device_->synchronize(event); }
  double seconds_between(const backend::Event& begin, const backend::Event& end) override {
    return device_->seconds_between(begin, end);
  }
  int64_t allocated_bytes() const override { return device_->allocated_bytes(); }
  int64_t used_bytes() const override { return device_->used_bytes(); }
  int64_t total_bytes() const override { return device_->total_bytes(); }
  double peak_flops() const override { return device_->peak_flops(); }
  int numa_node() const override { return device_->numa_node(); }

 protected:
  const std::unique_ptr<backend::Device> device_;
};

}  // namespace test
