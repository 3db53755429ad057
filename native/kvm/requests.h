// The requests whose structure ends in an array without a size. The request number holds the structure's size, and
// linux/kvm.h gives such a structure another size in C++ than in C (the empty struct of __DECLARE_FLEX_ARRAY has one
// byte in C++), so the C sizes are spelled out here. Never use the header's own names for these.
#pragma once

#include <linux/kvm.h>
#include <sys/ioctl.h>

namespace vivarium::request {

inline constexpr unsigned long kGetMsrIndexList = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x02, 4);
inline constexpr unsigned long kGetMsrFeatureIndexList = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x0a, 4);
inline constexpr unsigned long kGetSupportedCpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, 8);
inline constexpr unsigned long kGetEmulatedCpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x09, 8);
inline constexpr unsigned long kSetCpuid2 = _IOC(_IOC_WRITE, KVMIO, 0x90, 8);
inline constexpr unsigned long kGetCpuid2 = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x91, 8);
inline constexpr unsigned long kGetMsrs = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x88, 8);
inline constexpr unsigned long kSetMsrs = _IOC(_IOC_WRITE, KVMIO, 0x89, 8);
inline constexpr unsigned long kSetGsiRouting = _IOC(_IOC_WRITE, KVMIO, 0x6a, 8);
inline constexpr unsigned long kGetXsave = _IOC(_IOC_READ, KVMIO, 0xa4, 4096);
inline constexpr unsigned long kSetXsave = _IOC(_IOC_WRITE, KVMIO, 0xa5, 4096);
inline constexpr unsigned long kGetXsave2 = _IOC(_IOC_READ, KVMIO, 0xcf, 4096);

}  // namespace vivarium::request
