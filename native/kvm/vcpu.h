// One vCPU's descriptor and its kvm_run mapping. Issues ioctls; knows nothing of threads (thread/vcpu_runner does).
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/mapping.h"
#include "kvm/ioctl_table.h"
#include "kvm/stats.h"

namespace vivarium {

class Vcpu {
 public:
  // KVM_CREATE_VCPU on the VM's descriptor, and the mapping of kvm_run.
  Vcpu(const CountersPtr& counters, int vmFd, uint32_t id, size_t mmapBytes);

  uint32_t id() const { return id_; }
  int fd() const { return fd_.get(); }
  kvm_run* run() const { return reinterpret_cast<kvm_run*>(mapping_->data()); }
  const std::shared_ptr<Mapping>& mapping() const { return mapping_; }

  // The structure at `bytes` has the size of the row.
  int structIoctl(const StructIoctl& row, void* bytes) const;
  int valueIoctl(const ValueIoctl& row, unsigned long argument) const;
  // KVM_GET_DEVICE_ATTR and KVM_SET_DEVICE_ATTR of an attribute that is a u64: KVM_VCPU_TSC_OFFSET.
  uint64_t deviceAttr(uint32_t group, uint64_t attribute) const;
  void setDeviceAttr(uint32_t group, uint64_t attribute, uint64_t value) const;

  // The size of KVM_GET_XSAVE2 for this VM, at least 4096.
  size_t xsaveBytes(int vmFd) const;
  void getXsave(std::span<uint8_t> bytes) const;
  void setXsave(std::span<uint8_t> bytes) const;
  const Fd& statsFd() const { return statsFd_; }
  // One of the statistics by its name, at the cost of a read after the first call; nothing where this KVM has it not.
  std::optional<uint64_t> stat(const std::string& name) const;

  // Closes the descriptors; the mapping goes with its last user. No thread may be in KVM_RUN.
  void close();

 private:
  uint32_t id_;
  Fd fd_;
  Fd statsFd_;
  mutable std::map<std::string, std::optional<uint64_t>> statPlaces_;  // JavaScript thread
  std::shared_ptr<Mapping> mapping_;
  Counted counted_;
};

}  // namespace vivarium
