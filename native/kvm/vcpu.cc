// The ioctls of a vCPU's descriptor, except the lists (kvm/lists) and KVM_RUN (thread/vcpu_runner).
#include "kvm/vcpu.h"

#include <asm/kvm.h>
#include <sys/mman.h>

#include <cerrno>

#include "core/failure.h"
#include "kvm/requests.h"

namespace vivarium {
namespace {

constexpr size_t kXsaveBytes = 4096;  // struct kvm_xsave without its flexible array

std::string vcpuName(uint32_t id) {
  return "vcpu " + std::to_string(id);
}

std::string attributeName(uint32_t id, uint32_t group, uint64_t attribute) {
  return vcpuName(id) + ", group " + std::to_string(group) + ", attribute " + std::to_string(attribute);
}

// KVM reads or writes as many bytes at `addr` as the attribute has: only those known to be a u64 may reach it.
kvm_device_attr u64Attribute(uint32_t group, uint64_t attribute, uint64_t* value) {
  if (group != KVM_VCPU_TSC_CTRL || attribute != KVM_VCPU_TSC_OFFSET) {
    throwRange("attribute: only the TSC offset (group 0, attribute 0) is known");
  }
  return kvm_device_attr{0, group, attribute, reinterpret_cast<uintptr_t>(value)};
}

}  // namespace

Vcpu::Vcpu(const CountersPtr& counters, int vmFd, uint32_t id, size_t mmapBytes)
    : id_(id),
      fd_(ioctlChecked(vmFd, KVM_CREATE_VCPU, static_cast<unsigned long>(id), "KVM_CREATE_VCPU", vcpuName(id))),
      statsFd_(openStats(fd_.get())),
      mapping_(Mapping::shared(counters, fd_.get(), mmapBytes)),
      counted_(counters, &Counters::vcpus) {}

int Vcpu::structIoctl(const StructIoctl& row, void* bytes) const {
  return ioctlChecked(fd_.get(), row.request, bytes, row.name, vcpuName(id_));
}

int Vcpu::valueIoctl(const ValueIoctl& row, unsigned long argument) const {
  return ioctlChecked(fd_.get(), row.request, argument, row.name, vcpuName(id_));
}

uint64_t Vcpu::deviceAttr(uint32_t group, uint64_t attribute) const {
  uint64_t value = 0;
  kvm_device_attr attr = u64Attribute(group, attribute, &value);
  ioctlChecked(fd_.get(), KVM_GET_DEVICE_ATTR, &attr, "KVM_GET_DEVICE_ATTR", attributeName(id_, group, attribute));
  return value;
}

void Vcpu::setDeviceAttr(uint32_t group, uint64_t attribute, uint64_t value) const {
  kvm_device_attr attr = u64Attribute(group, attribute, &value);
  ioctlChecked(fd_.get(), KVM_SET_DEVICE_ATTR, &attr, "KVM_SET_DEVICE_ATTR", attributeName(id_, group, attribute));
}

size_t Vcpu::xsaveBytes(int vmFd) const {
  const int size = ioctlRetry(vmFd, KVM_CHECK_EXTENSION, static_cast<unsigned long>(KVM_CAP_XSAVE2));
  return size > static_cast<int>(kXsaveBytes) ? static_cast<size_t>(size) : kXsaveBytes;
}

void Vcpu::getXsave(std::span<uint8_t> bytes) const {
  // KVM_GET_XSAVE2 is there exactly where the size can be above that of struct kvm_xsave; KVM_GET_XSAVE otherwise.
  if (ioctlRetry(fd_.get(), request::kGetXsave2, bytes.data()) == 0) return;
  if (errno != ENOTTY && errno != EINVAL) throwIoctl("KVM_GET_XSAVE2", errno, vcpuName(id_));
  if (bytes.size() > kXsaveBytes) throwIoctl("KVM_GET_XSAVE2", errno, vcpuName(id_));
  ioctlChecked(fd_.get(), request::kGetXsave, bytes.data(), "KVM_GET_XSAVE", vcpuName(id_));
}

void Vcpu::setXsave(std::span<uint8_t> bytes) const {
  ioctlChecked(fd_.get(), request::kSetXsave, bytes.data(), "KVM_SET_XSAVE", vcpuName(id_));
}

std::optional<uint64_t> Vcpu::stat(const std::string& name) const {
  auto found = statPlaces_.find(name);
  if (found == statPlaces_.end()) found = statPlaces_.emplace(name, findStat(statsFd_, name)).first;
  if (!found->second.has_value()) return std::nullopt;
  return readStat(statsFd_, *found->second);
}

void Vcpu::close() {
  statsFd_.reset();
  fd_.reset();
}

}  // namespace vivarium
