// The ioctls of the system's descriptor.
#include "kvm/system.h"

#include <fcntl.h>
#include <linux/kvm.h>

#include <cerrno>

#include "core/failure.h"
#include "kvm/lists.h"
#include "kvm/requests.h"

namespace vivarium {

System::System(const CountersPtr& counters, const std::string& path)
    : fd_(::open(path.c_str(), O_RDWR | O_CLOEXEC)), counted_(counters, &Counters::systems) {
  if (!fd_.valid()) throwSyscall("open", errno, path);
}

int System::apiVersion() const {
  return ioctlChecked(fd_.get(), KVM_GET_API_VERSION, 0ul, "KVM_GET_API_VERSION");
}

int System::checkExtension(int capability) const {
  return ioctlChecked(fd_.get(), KVM_CHECK_EXTENSION, static_cast<unsigned long>(capability), "KVM_CHECK_EXTENSION",
                      "capability " + std::to_string(capability));
}

int System::vcpuMmapSize() const {
  return ioctlChecked(fd_.get(), KVM_GET_VCPU_MMAP_SIZE, 0ul, "KVM_GET_VCPU_MMAP_SIZE");
}

std::vector<uint32_t> System::supportedCpuid() const {
  return readCpuid(fd_.get(), request::kGetSupportedCpuid, "KVM_GET_SUPPORTED_CPUID");
}

std::vector<uint32_t> System::emulatedCpuid() const {
  return readCpuid(fd_.get(), request::kGetEmulatedCpuid, "KVM_GET_EMULATED_CPUID");
}

std::vector<uint32_t> System::msrIndices() const {
  return readMsrIndices(fd_.get(), request::kGetMsrIndexList, "KVM_GET_MSR_INDEX_LIST");
}

std::vector<uint32_t> System::featureMsrIndices() const {
  return readMsrIndices(fd_.get(), request::kGetMsrFeatureIndexList, "KVM_GET_MSR_FEATURE_INDEX_LIST");
}

std::vector<uint64_t> System::readFeatureMsrs(std::span<const uint32_t> indices) const {
  return readMsrs(fd_.get(), indices);
}

Fd System::createVm(unsigned long type) const {
  return Fd(
      ioctlChecked(fd_.get(), KVM_CREATE_VM, type, "KVM_CREATE_VM", type == 0 ? "" : "type " + std::to_string(type)));
}

}  // namespace vivarium
