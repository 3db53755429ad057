// The ioctls whose argument is a counted list: MSRs, CPUID entries, MSR indices. They work on the system's fd and on a
// vCPU's alike, so they stand apart from both classes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace vivarium {

// Words of one CPUID row: function, index, flags, eax, ebx, ecx, edx.
inline constexpr size_t kCpuidRowWords = 7;

// KVM_GET_SUPPORTED_CPUID, KVM_GET_EMULATED_CPUID or KVM_GET_CPUID2, with a list that grows until it fits.
std::vector<uint32_t> readCpuid(int fd, unsigned long request, const char* name);
void writeCpuid(int fd, std::span<const uint32_t> rows);

// KVM_GET_MSR_INDEX_LIST or KVM_GET_MSR_FEATURE_INDEX_LIST.
std::vector<uint32_t> readMsrIndices(int fd, unsigned long request, const char* name);

// KVM_GET_MSRS and KVM_SET_MSRS. A refused index is a Failure with EINVAL whose detail names it ('msr 0x10a').
std::vector<uint64_t> readMsrs(int fd, std::span<const uint32_t> indices);
void writeMsrs(int fd, std::span<const uint32_t> indices, std::span<const uint64_t> values);

}  // namespace vivarium
