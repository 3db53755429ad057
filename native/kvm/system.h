// /dev/kvm itself: what this KVM can do, and the making of virtual machines.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/counters.h"
#include "core/fd.h"

namespace vivarium {

class System {
 public:
  System(const CountersPtr& counters, const std::string& path);
  int apiVersion() const;
  int checkExtension(int capability) const;
  int vcpuMmapSize() const;
  std::vector<uint32_t> supportedCpuid() const;
  std::vector<uint32_t> emulatedCpuid() const;
  std::vector<uint32_t> msrIndices() const;
  std::vector<uint32_t> featureMsrIndices() const;
  std::vector<uint64_t> readFeatureMsrs(std::span<const uint32_t> indices) const;
  // KVM_CREATE_VM; any thread.
  Fd createVm(unsigned long type) const;

 private:
  Fd fd_;
  Counted counted_;
};

}  // namespace vivarium
